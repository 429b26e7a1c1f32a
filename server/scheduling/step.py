"""What one step computes: a scheduler makes it, an engine runs it."""

from collections.abc import Container
from dataclasses import dataclass

from server.scheduling.sequence import TokenSequence


@dataclass(frozen=True)
class Work:
    """Tokens `start..stop` of a sequence that a step runs through the model.

    `samples` says whether the step ends with a new token for it: these are the last ones it has.
    """

    sequence: TokenSequence
    start: int
    stop: int
    samples: bool

    @property
    def scored(self) -> list[int]:
        """Return the positions among these tokens behind which a given token is scored."""
        wanted = self.sequence.sampling.scored
        return [i for i in range(self.start, self.stop) if i in wanted] if wanted else []

    @classmethod
    def of(cls, sequence: TokenSequence, start: int, stop: int) -> "Work":
        """Return the work on these tokens of a sequence as it stands."""
        return cls(sequence, start, stop, stop == len(sequence.tokens))


@dataclass(frozen=True)
class Batch:
    """One step: single tokens of running sequences, then pieces of prompts."""

    decode: tuple[Work, ...]
    prefill: tuple[Work, ...]

    @property
    def works(self) -> tuple[Work, ...]:
        """Return all works in the order of their rows."""
        return self.decode + self.prefill

    def only(self, works: Container[Work]) -> "Batch":
        """Return the step with these works alone, in the same order."""
        return Batch(
            tuple(work for work in self.decode if work in works),
            tuple(work for work in self.prefill if work in works),
        )

    @property
    def num_rows(self) -> int:
        """Return how many tokens run through the model."""
        return sum(work.stop - work.start for work in self.works)
