"""The commands of `overtone` for serving, stores and tenants. Imports all of the server."""
