"""What operators see of a running engine: logs, metrics, and the page that they are read from."""
