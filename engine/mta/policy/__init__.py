"""Decisions as plain functions: limits, rates, retries, verdicts. No clock, no socket."""
