"""What the first rank tells a process that it starts: JSON lines, the first of them a RankTask.

    {"join": true}        meet the others
    {"begin": SPEC}       make ready to train this
    {"compare": true}     make sure that what never moves is the same
    {"step": 12}          work out this rank's share of the step's gradients

The end of its input ends a rank. It answers once, when it has the base: `{"ready": true}`, or
`{"error": "why"}`.
"""

import json
from dataclasses import asdict, dataclass
from typing import Self


@dataclass(frozen=True)
class RankTask:
    """One rank beyond the first.

    Args:
        number, count: of this rank, and of all.
        device: of this rank.
        base, base_name, task, load: what is loaded, and by whom, as in the first rank.
        training, validation: the job's files.
        known: what the first rank has found out about them.
        meeting: the file at which the ranks meet.
        timeout_s: the longest wait for the others within a step.
        parent: the first rank's process id; who finds another parent ends at once.
    """

    number: int
    count: int
    device: str
    base: str
    base_name: str
    task: str
    load: str
    training: str
    validation: str | None
    known: str
    meeting: str
    timeout_s: float
    parent: int

    def to_json(self) -> str:
        """Return what `from_json` reads: one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the task that the first rank wrote."""
        return cls(**json.loads(text))
