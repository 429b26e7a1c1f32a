"""The kinds of bases, by what their adapters are used for."""

from typing import Literal

Kind = Literal["causal LM", "text classifier", "image classifier", "embedder"]
