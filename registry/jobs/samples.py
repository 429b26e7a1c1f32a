"""What a job's adapter answered at a checkpoint to a few held-out prompts.

They stand in a stream of their own, apart from the checkpoints: those of the latest `MAX_SAMPLED`
checkpoints are kept, and every text is cut, so a job's samples stay below two megabytes.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, Self

from registry.errors import CorruptRecord
from registry.jobs.log import Entry

#: Checkpoints of one job whose samples are kept.
MAX_SAMPLED = 100
#: Samples of one checkpoint.
MAX_SAMPLES = 4
#: Characters of one text.
MAX_TEXT_CHARS = 400

#: How an answer ended: by itself, at the most tokens, or since its time was up.
Ending = Literal["stop", "length", "time"]
#: Why a checkpoint has no samples: their time was up, asking failed, or no example has a prompt.
LeftOut = Literal["time", "failed", "no_prompts"]
Source = Literal["validation_file", "training_file"]


@dataclass(frozen=True)
class Sample:
    """One prompt and its answer.

    Args:
        prompt: its last characters, as the base reads it.
        expected: how the answer in the file begins.
        answer: how the adapter's begins.
        finish_reason: how the adapter's ended.
    """

    prompt: str
    expected: str
    answer: str
    finish_reason: Ending


@dataclass(frozen=True)
class Samples:
    """The samples of one checkpoint, or why there are none.

    Args:
        step: of the checkpoint.
        source: the file of the prompts; in none of the two they were learned.
        samples: in the order of that file.
        left_out: why there are none; None if there are any.
    """

    step: int
    source: Source
    samples: tuple[Sample, ...] = ()
    left_out: LeftOut | None = None

    @classmethod
    def read(cls, id_: bytes, entry: Mapping[bytes, bytes]) -> Self:
        """Read one stream entry, whose place is its step."""
        try:
            given = json.loads(entry[b"samples"])
            samples = tuple(Sample(**each) for each in given["samples"])
            step = int(id_.partition(b"-")[0])
            return cls(step, given["source"], samples, given["left_out"])
        except (KeyError, ValueError, TypeError) as error:
            raise CorruptRecord(f"a job's samples {id_!r} are not what jobs write") from error


def samples_entry(given: Samples) -> Entry:
    """Return a checkpoint's samples to report; texts that are too long are cut."""
    cut = [
        Sample(
            _cut(one.prompt, keeps_end=True),
            _cut(one.expected),
            _cut(one.answer),
            one.finish_reason,
        )
        for one in given.samples[:MAX_SAMPLES]
    ]
    body = {"source": given.source, "samples": list(map(asdict, cut)), "left_out": given.left_out}
    return "samples", (str(given.step), json.dumps(body, separators=(",", ":")))


def _cut(text: str, keeps_end: bool = False) -> str:
    """Return a text within its bound, without lone surrogates, which no reply can carry."""
    if len(text) > MAX_TEXT_CHARS:
        most = MAX_TEXT_CHARS - 1
        text = "…" + text[-most:] if keeps_end else text[:most] + "…"
    return text.encode("utf-8", "replace").decode()
