"""Actors on trio: supervision trees as data, mailboxes, the clock, child processes, periodic work.

Knows no mail. Read `spec` (what a tree is made of), then `mailbox`, `ref` and `answer` (how actors talk),
`child` and `supervisor` (how they live and come back), `dynamic` (thousands of short-lived children),
`process` (a child process as an actor) and `clock`.
"""
