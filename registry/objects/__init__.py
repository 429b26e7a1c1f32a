"""A bucket of S3: how it is named, its objects, and what its faults mean.

May import errors.
"""
