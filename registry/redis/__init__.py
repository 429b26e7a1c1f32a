"""The connection: keys, Lua scripts, addresses, and the embedded server with its disk.

May import common and errors. This is where Redis' faults become the registry's errors.
"""
