"""HTTP: middleware, what a request may say, and what an answer looks like.

Imports the service and the rooms below it; api/routes has the endpoints.
"""
