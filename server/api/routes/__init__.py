"""The HTTP endpoints, one module per family. Imports api, the service and what they stand on."""
