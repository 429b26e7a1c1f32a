"""The process of one job: its attempt, reports, journal, event files and publication.

Imports training and what that imports.
"""
