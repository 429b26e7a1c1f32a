"""The plan of a load generator: requests and their times; seeded, pure, and without torch.

Arrivals of an open loop are a Poisson process: the gaps are exponential and do not depend on the
answers. Adapters are drawn by Zipf's law, lengths from a distribution.
"""

import math
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, count
from random import Random

from overtone_client import InvalidArgument

#: Kind -> the names of its values.
_KINDS = {"fixed": ("TOKENS",), "uniform": ("LEAST", "MOST"), "lognormal": ("MEDIAN", "SIGMA")}
FORMS = ", ".join(":".join((kind, *parts)) for kind, parts in _KINDS.items())


@dataclass(frozen=True)
class Lengths:
    """A distribution of token counts, each at least 1.

    Args:
        kind: `fixed`, `uniform` (both ends included) or `lognormal` (median, sigma of the log).
        values: its numbers.
    """

    kind: str
    values: tuple[float, ...]

    @classmethod
    def parse(cls, text: str) -> "Lengths":
        """Return the distribution written `fixed:64`, `uniform:16:256` or `lognormal:128:0.5`.

        Raises:
            InvalidArgument: it is none of these.
        """
        kind, *parts = text.split(":")
        expected = _KINDS.get(kind)
        if expected is None or len(parts) != len(expected):
            raise InvalidArgument(f"lengths {text!r} are not understood; write one of {FORMS}")
        try:
            made = cls(kind, tuple(float(part) for part in parts))
        except ValueError as error:
            raise InvalidArgument(f"lengths {text!r}: {error}; write one of {FORMS}") from error
        made._check(text)
        return made

    def _check(self, text: str) -> None:
        counts = self.values[:1] if self.kind == "lognormal" else self.values
        if not all(math.isfinite(value) for value in self.values) or min(counts) < 1:
            raise InvalidArgument(f"lengths {text!r}: a length is at least one token")
        if self.kind == "uniform" and self.values[0] > self.values[1]:
            raise InvalidArgument(f"lengths {text!r}: the least is more than the most")
        if self.kind == "lognormal" and self.values[1] < 0:
            raise InvalidArgument(f"lengths {text!r}: sigma is negative")

    def draw(self, random: Random) -> int:
        """Return one length, at least 1."""
        if self.kind == "fixed":
            return int(self.values[0])
        if self.kind == "uniform":
            return random.randint(int(self.values[0]), int(self.values[1]))
        median, sigma = self.values
        return max(1, round(median * math.exp(random.gauss(0.0, sigma))))

    def __str__(self) -> str:
        return ":".join((self.kind, *(f"{value:g}" for value in self.values)))


def zipf_shares(number: int, skew: float) -> list[float]:
    """Return the share of traffic of each of `number` ranks; they sum to 1. A skew of 0 is even."""
    weights = [rank**-skew for rank in range(1, number + 1)]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


@dataclass(frozen=True)
class Planned:
    """One request to be sent.

    Args:
        number: counts from 0.
        at_s: seconds after the start at which it is due; 0 in a closed loop.
        adapter: index of the adapter it names.
        prompt_tokens, max_tokens: how long it is, and how long its answer is to be.
    """

    number: int
    at_s: float
    adapter: int
    prompt_tokens: int
    max_tokens: int


@dataclass(frozen=True)
class Load:
    """What traffic looks like.

    Args:
        adapters: how many are asked.
        skew: of Zipf's law over them.
        prompt, output: lengths in tokens.
        rate: requests a second of an open loop; None for a closed one.
        longest: prompt and answer together never have more tokens than this.
    """

    adapters: int
    skew: float
    prompt: Lengths
    output: Lengths
    rate: float | None = None
    longest: int = 1 << 30

    def requests(self, seed: int) -> Iterator[Planned]:
        """Yield requests without end, the same ones for the same seed."""
        random = Random(seed)
        bounds = list(accumulate(zipf_shares(self.adapters, self.skew)))
        at = 0.0
        for number in count():
            if self.rate is not None:
                at += random.expovariate(self.rate)
            adapter = min(bisect(bounds, random.random()), self.adapters - 1)
            prompt = min(self.prompt.draw(random), self.longest - 1)
            output = min(self.output.draw(random), self.longest - prompt)
            yield Planned(number, at, adapter, prompt, output)


def prompt_of(planned: Planned, seed: int, vocabulary: int) -> list[int]:
    """Return the request's prompt: random token ids from 1 to below `vocabulary`."""
    random = Random(f"{seed}/{planned.number}")
    return random.choices(range(1, vocabulary), k=planned.prompt_tokens)
