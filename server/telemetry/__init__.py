"""Metrics with a bounded number of labels, and the process's log. Imports errors."""
