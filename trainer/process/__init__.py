"""A worker's processes: orders, priority, devices, heartbeats, what is left of dead ones.

Imports registry and adapters_core alone.
"""
