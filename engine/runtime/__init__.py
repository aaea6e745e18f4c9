"""Actors on trio: supervision trees as data, mailboxes, the clock, child processes, periodic work.

Knows no mail. Read `spec` (what a tree is made of), then `mailbox`, `ref` and `answer` (how actors talk),
`child` and `supervisor` (how they live and come back), `dynamic` (thousands of short-lived children),
`process` with `frames` and `frame_server` (a child process as an actor), `clock`, `periodic` and `ticking`.
"""
