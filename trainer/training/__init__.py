"""One run, from files to an adapter: data, presets, rates, the loop, ranks, evaluations.

Imports tasks, process and the modules beside the rooms.
"""
