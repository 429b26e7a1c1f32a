"""Batches of requests over an uploaded file: records, claims, and answers that outlive a process.

May import registry.files, redis, common and training_data (how lines are read).
"""
