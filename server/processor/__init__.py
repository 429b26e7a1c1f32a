"""Finds the setting of this processor's libraries under which a row's bits do not depend on others.

choice and search run before torch is loaded: the matrix library reads its setting when it starts.
"""
