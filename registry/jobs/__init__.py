"""Training jobs: records, states, claims, reports, the queue, their folders, and the workers.

May import redis, common and errors.
"""
