"""ASGI middleware, one module each: what happens to every request before and after its route."""
