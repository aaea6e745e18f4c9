"""The durable queue: a contract (`api`), the LMDB spool and its in-memory twin."""
