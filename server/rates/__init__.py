"""What tenants may ask, counted over all servers of a registry, without a wait for each request.

May import errors.
"""
