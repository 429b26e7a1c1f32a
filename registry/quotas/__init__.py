"""How much a tenant may have and ask: limits, their mirror, and rates that all servers share.

May import adapters (the changes that a mirror follows), redis, common and errors.
"""
