"""A discrete-event simulation of a fleet: replicas, their memory, and what places requests.

Pure: seeded, without threads, clocks and torch. Seconds come from measured costs.
"""
