"""Held-out figures of served models: what `overtone evaluate` and POST /v1/evaluations compute.

Imports the service and what it consists of; the routes import it.
"""
