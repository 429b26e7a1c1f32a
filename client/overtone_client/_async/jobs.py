"""A training job at hand: waited for, watched, ended."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Self

from .. import _pauses as pauses
from .. import _training_requests as requests
from .. import _training_responses as responses
from .._patience import Deadline, Patience
from .._requests import Call
from ..errors import PASSING, JobFailed, OvertoneError, Timeout
from ..training_types import JobEvent, JobFacts
from .sender import AsyncSender

#: A job is looked at again after this share of the time that it has taken so far.
_SHARE, _LEAST_S, _GREATEST_S = 0.1, 0.2, 5.0
_AGAIN_S = 1.0


@dataclass(frozen=True)
class AsyncJob(JobFacts):
    """A training job as it stood when the server was asked, and what can be done about it.

    Its fields never change: methods return a new one.
    """

    _sender: AsyncSender = field(repr=False, compare=False)

    @classmethod
    def of(cls, body: Any, sender: AsyncSender) -> Self:
        """The job from its JSON."""
        return cls(**responses.job_facts(body), _sender=sender)

    async def refresh(self) -> Self:
        """The job as it stands now."""
        return await self._looked_at(None)

    async def cancel(self) -> Self:
        """End the job for good."""
        return await self._asked(Call("POST", requests.job_path(self.id, "cancel")))

    async def pause(self) -> Self:
        """Hold the job; it writes a checkpoint first."""
        return await self._asked(Call("POST", requests.job_path(self.id, "pause")))

    async def resume(self) -> Self:
        """Resume the paused job from its checkpoint."""
        return await self._asked(Call("POST", requests.job_path(self.id, "resume")))

    async def wait(self, *, timeout_s: float | None = None, check: bool = True) -> Self:
        """The job at its end; a server that restarts meanwhile is waited for.

        Args:
            timeout_s: how long to wait; the job goes on afterwards.
            check: raise if the job has made nothing.

        Raises:
            JobFailed: the job has failed or was cancelled.
            Timeout: it is not over yet.
        """
        deadline, patience = Deadline(timeout_s), Patience()
        job, pause_s, reason = self, _LEAST_S, ""
        while not job.is_final:
            await pauses.async_pause(deadline.pause_s(pause_s))
            if deadline.left_s == 0:
                waited = f"{deadline.waited_s:.0f} s"
                raise Timeout(f"{self.id} is {job.status} after {waited}; it goes on{reason}")
            pause_s = min(max(_SHARE * deadline.waited_s, _LEAST_S), _GREATEST_S)
            try:
                job, reason = await self._looked_at(deadline.left_s), ""
                patience.renew()
            except PASSING as error:
                pause_s, reason = patience.pause_s(error, pause_s), f" ({error.message})"
        if check and job.status != "succeeded":
            raise JobFailed.of(job)
        return job

    async def events(
        self, *, on_lost: Callable[[OvertoneError], None] | None = None
    ) -> AsyncGenerator[JobEvent, None]:
        """What happens to the job, from its first event on, as it comes, to the job's end.

        A stream that breaks is opened again where it broke, so each event comes once.

        Args:
            on_lost: told of each error after which the stream is opened again.
        """
        after: str | None = None
        step: int | None = None
        patience = Patience()
        while True:
            call = requests.streamed(self.id, after, step)
            told = self._sender.stream(call, responses.to_event, patience.note_open)
            try:
                async with aclosing(told) as stream:
                    async for event in stream:
                        patience.renew()
                        if event.type == "metrics":
                            step = int(event.data["step"])
                        else:
                            after = event.id
                        yield event
                return
            except PASSING as error:
                pause_s = patience.pause_s(error, _AGAIN_S)
                if on_lost:
                    on_lost(error)
            await pauses.async_pause(pause_s)

    async def _looked_at(self, within_s: float | None) -> Self:
        return await self._asked(Call("GET", requests.job_path(self.id)), within_s)

    async def _asked(self, call: Call, within_s: float | None = None) -> Self:
        answer = await self._sender.send(call, within_s=within_s)
        return responses.parse(answer, lambda body: self.of(body, self._sender))
