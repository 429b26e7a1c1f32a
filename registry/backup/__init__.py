"""A registry and its store copied to a folder, and made anew from it.

See backup.py for what a backup holds, and restore.py for the order in which it is put back.
"""
