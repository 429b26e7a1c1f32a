"""The thread that runs the engine, and the way of its tokens to the requests as text.

Imports engine, planning, adapters, scheduling and errors.
"""
