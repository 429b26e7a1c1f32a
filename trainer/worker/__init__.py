"""`overtone worker`: claims jobs, starts their processes, takes back what the dead left.

Imports all other rooms but demo_build.
"""
