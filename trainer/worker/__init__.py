"""`overtone worker`: claims jobs, starts their processes, takes back stale claims.

Imports all other rooms but demo_build.
"""
