"""Metrics, labels with a limit, and the process's log. Imports errors."""
