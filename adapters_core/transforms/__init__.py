"""The transforms that methods are built on, and the sums over their few coefficients."""
