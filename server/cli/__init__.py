"""The commands of `overtone` that serve, and those for a store. Imports all of the server."""
