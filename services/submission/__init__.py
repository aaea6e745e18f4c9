"""Submission: the SMTP listener that takes single messages from clients (RFC 6409) and puts them on the
bus.

`config` reads `[submission]`, `accounts` the accounts file; `limits` and `messages` decide, purely;
`session` and `answers` speak with one client, `publishing` makes durable what all of them hand in, `worker`
runs one process of it.
"""
