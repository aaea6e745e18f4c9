"""What operators see of a running engine: logs, later metrics."""
