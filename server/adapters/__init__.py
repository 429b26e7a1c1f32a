"""Adapters in memory: the books of bytes, loading, materialising, banks, pins.

Imports base, scheduling, telemetry and errors.
"""
