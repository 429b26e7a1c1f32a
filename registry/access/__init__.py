"""API keys: their records in Redis, their secrets, and a server's mirror of them.

May import adapters (the changes that a mirror follows), redis, common and errors.
"""
