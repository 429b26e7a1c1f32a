"""A worker's processes: settings, tasks, devices, priority, heartbeats, retries, cleanup.

Imports registry and adapters_core alone.
"""
