"""The inference server: one process, one device, one base."""
