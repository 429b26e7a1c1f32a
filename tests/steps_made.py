"""Steps of single tokens, for tests of what runs and records them."""

from adapters_core.contract.layer import Shape
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from server.adapters.residency import Entry
from server.scheduling.sequence import Sampling, TokenSequence
from server.scheduling.step import Batch, Work
from server_parts import CPU, FOURIERFT

PAGE = 8


def bank_of(slots: int = 4) -> Bank:
    shapes = {"model.layers.0.self_attn.q_proj": Shape(12, 8)}
    methods = FOURIERFT.of_layers(shapes)
    return Bank(Layout.of(methods, shapes), BasisCache(CPU), slots)


def running(length: int, pages: list[int], payload: object = None) -> Work:
    """Return the work on the last of `length` tokens."""
    lease = Entry("key", payload=payload) if payload else None
    sequence = TokenSequence(tuple(range(10, 10 + length)), Sampling(max_tokens=4), lease)
    sequence.pages = pages
    return Work.of(sequence, length - 1, length)


def steps_of(*works: Work) -> Batch:
    return Batch(tuple(works), ())
