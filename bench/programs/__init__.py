"""What measures the product: each module with a `main` is one `overtone bench NAME`.

May import lib.
"""
