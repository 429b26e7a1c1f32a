"""The folder of the bytes: which registry it belongs to, and what in it no record names.

May import adapters, jobs, files and what these import.
"""
