"""In-memory queues: pure structures without a clock."""
