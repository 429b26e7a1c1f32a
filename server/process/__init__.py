"""The server as a process: start, signals, the listening socket, the worker beside it.

Imports the app and all below it.
"""
