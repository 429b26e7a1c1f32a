"""Adapters: records in Redis, bytes in a store, changes, and a server's mirror of the names.

May import redis, common and errors.
"""
