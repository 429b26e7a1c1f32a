"""Positions and matrices that a seed gives. Imports errors alone."""
