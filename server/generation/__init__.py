"""The thread that runs the engine, and the delivery of its tokens to requests as text.

Imports engine, planning, adapters, scheduling and errors.
"""
