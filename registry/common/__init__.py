"""What every room of the registry uses: names, fences, notes, pages, whole files, processes.

Imports errors alone.
"""
