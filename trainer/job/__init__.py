"""The process of one job: its attempts, journal, events and publication.

Imports training and what that imports.
"""
