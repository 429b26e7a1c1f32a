"""All targets of the CPU in one table: runs the programs as processes of their own.

May import lib.
"""
