"""What holds adapters on the device: residency, loading, materialising, banks.

Imports base, scheduling, telemetry and errors.
"""
