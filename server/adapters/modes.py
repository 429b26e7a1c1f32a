"""The two ways of an adapter's rows: own merged weights, or factored beside the base's."""

from typing import Literal

Mode = Literal["factored", "merged"]
ModeSetting = Literal["auto", "factored", "merged"]
