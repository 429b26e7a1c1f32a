"""The folder of the bytes: the registry it belongs to, and its contents that no record names.

May import adapters, jobs, files and what these import.
"""
