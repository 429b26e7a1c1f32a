"""Benchmarks: programs whose last line on standard output is one JSON object."""
