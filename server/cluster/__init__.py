"""Many machines: plain servers as replicas on Ray Serve, and what is in front of them.

A client asks Ray Serve's proxy, which asks the ingress, which asks a replica of the base that is
named; a replica is a plain server in a process of its own, so its answers are a plain server's.
"""
