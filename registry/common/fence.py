"""A fence is the number of a claim of a job, or of a batch; it grows with every claim.

A worker with an older fence than the job's record can report nothing and publish nothing. So a
worker that was believed dead does no harm when it goes on; nor does a server with a batch.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fence:
    """The right to act for a job or a batch: the number of one claim."""

    job: str
    number: int
