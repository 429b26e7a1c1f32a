"""The mathematics of adapters, their files, and the linears that carry them."""
