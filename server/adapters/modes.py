"""The two modes of an adapter: merged weights of its own, or factored beside the base's."""

from typing import Literal

Mode = Literal["factored", "merged"]
ModeSetting = Literal["auto", "factored", "merged"]
