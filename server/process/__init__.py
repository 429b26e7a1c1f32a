"""The server's process: start, signals, the listening socket, and the worker process.

Imports the app and all below it.
"""
