"""Runs batches of requests beside live ones: claims, feeds, keeps and writes their answers.

May import server.api: a batch's request is answered as if it had been sent to its endpoint.
"""
