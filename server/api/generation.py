"""One HTTP request's generations: from a checked request to finished or streaming choices."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from server.api.answerer import Answerer
from server.api.completion_schemas import GenerationRequest
from server.api.prompt_scores import echoed
from server.chat.message_stream import MessageDelta, ToolUse
from server.constraints.spec import ConstraintSpec
from server.generation.delivery import Mailbox
from server.generation.runtime import FailedEvent, Generation, SequenceRequest, Sink
from server.generation.text_stream import Place, TextForm
from server.scheduling.sequence import Constraint, Sampled, Sampling, TokenSequence
from server.service import Service

#: Tokens of a prompt that one delta has.
_ECHOED_AT_ONCE = 256


@dataclass(frozen=True)
class Delta:
    """What one token added to one choice; text may be empty while it is held back.

    Args:
        is_echo: this is a part of the choice's prompt, not what was generated.
        places: where each token stands.
        message: what it adds to the message of a chat with tools, text included; else None.
    """

    choice: int
    text: str
    sampled: tuple[Sampled, ...]
    finish_reason: str | None
    is_echo: bool = False
    places: tuple[Place, ...] = ()
    message: Sequence[MessageDelta] | None = None

    @property
    def num_echoed(self) -> int:
        """Return how many of its tokens are the prompt's."""
        return len(self.sampled) if self.is_echo else 0

    @property
    def num_generated(self) -> int:
        """Return how many generated tokens it has."""
        return len(self.sampled) - self.num_echoed


@dataclass
class Choice:
    """A choice as far as it has come.

    Args:
        pieces: of its text.
        sampled: its tokens.
        places: where each token stands.
        num_echoed: the first of its tokens, which are its prompt's.
        message: that of a chat with tools, text included; else None.
        extras: fields of this choice alone.
    """

    pieces: list[str] = field(default_factory=list)
    sampled: list[Sampled] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    finish_reason: str | None = None
    num_echoed: int = 0
    message: list[MessageDelta] | None = None
    extras: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Return its text."""
        return "".join(self.pieces)

    @property
    def num_generated(self) -> int:
        """Return how many generated tokens it has."""
        return len(self.sampled) - self.num_echoed


@dataclass(frozen=True)
class GenerationCall:
    """A request for completions, checked, resolved and tokenized: all that answering it needs.

    Args:
        body: as it was checked.
        answerer: what answers.
        prompts: token ids; one for each choice.
        max_tokens: of each choice; None for all that fit.
        num_logprobs: alternatives to report with each token; None reports no log-probabilities.
        num_prompt_logprobs: the same of the prompt's own tokens.
        echoes: the text of each prompt where answers begin with it; one for each choice.
        tenant: that it counts for.
        timeout_s: from acceptance to the last token; None for no limit.
        is_background: a batch's: it runs in the room that others leave.
        tool_use: how calls in answers are read; None where there are no tools.
        constraint: what each answer must be like; None for anything.
    """

    body: GenerationRequest
    answerer: Answerer
    prompts: list[tuple[int, ...]]
    max_tokens: int | None
    num_logprobs: int | None
    num_prompt_logprobs: int | None = None
    echoes: Sequence[str] = ()
    tenant: str = ""
    timeout_s: float | None = None
    is_background: bool = False
    tool_use: ToolUse | None = None
    constraint: ConstraintSpec | None = None

    @property
    def num_prompt_tokens(self) -> int:
        """Return how many tokens the prompts have; one counts once, however many choices it has."""
        return sum(map(len, self.prompts[:: self.body.n]))

    @property
    def text_form(self) -> TextForm:
        """Return what of its tokens becomes an answer's text, in which calls are looked for."""
        form = self.body.text_form
        return form if self.tool_use is None else replace(form, shown=self.tool_use.shown)


class Run:
    """The sequences of one request, from acceptance to their last tokens.

    Leaving it (`close`) cancels what is not over, and calls `on_over`; safe to call twice.

    Args:
        service: that computes them.
        call: that they answer.
        samplings: of each choice.
        constraint: the call's, compiled.
    """

    def __init__(
        self,
        service: Service,
        call: GenerationCall,
        samplings: Sequence[Sampling],
        constraint: Constraint | None = None,
    ) -> None:
        self._service = service
        self._call = call
        self._samplings = samplings
        self._constraint = constraint
        self._mailbox = Mailbox(service.deliveries)
        form, echoes = call.text_form, call.echoes or [""] * len(call.prompts)
        self._streams = [
            service.text.stream(prompt, form, len(echo))
            for prompt, echo in zip(call.prompts, echoes, strict=True)
        ]
        use = call.tool_use
        self._messages = [use.stream() for _ in call.prompts] if use else []
        self._generations: list[Generation] = []
        self._open: set[int] = set()
        self._echoed = set[int]()
        self._reasons: dict[int, str] = {}
        self.on_over: Callable[[], None] | None = None
        self.mode: str | None = None

    @property
    def is_over(self) -> bool:
        """Return whether every choice is finished."""
        return not self._open

    @property
    def is_loaded(self) -> bool:
        """Return whether all that the sequences need is in memory."""
        return all(generation.sequence.is_ready for generation in self._generations)

    @property
    def num_choices(self) -> int:
        """Return how many choices there are."""
        return len(self._call.prompts)

    @property
    def generations(self) -> list[Generation]:
        """Return what was accepted, choice by choice."""
        return self._generations

    @property
    def finish_reasons(self) -> list[str]:
        """Return why the choices that are finished have ended."""
        return [self._reasons[number] for number in sorted(self._reasons)]

    @property
    def sequences(self) -> list[TokenSequence]:
        """Return the choices' sequences."""
        return [generation.sequence for generation in self._generations]

    def requests(self) -> list[tuple[SequenceRequest, Sink]]:
        """Return what is to be accepted, choice by choice."""
        call = self._call
        asked = zip(call.prompts, self._samplings, strict=True)
        return [
            (self._request(prompt, sampling), self._mailbox.sink(number))
            for number, (prompt, sampling) in enumerate(asked)
        ]

    def _request(self, prompt: tuple[int, ...], sampling: Sampling) -> SequenceRequest:
        call = self._call
        return SequenceRequest(
            prompt,
            sampling,
            call.answerer.digest,
            call.tenant,
            call.timeout_s,
            is_background=call.is_background,
            constraint=self._constraint,
            adapter=call.answerer.adapter,
        )

    def begin(self, generations: Sequence[Generation]) -> None:
        """Take what was accepted, choice by choice."""
        self._generations = list(generations)
        self._open = set(range(len(generations)))
        self.mode = generations[0].mode

    async def deltas(self) -> AsyncGenerator[Delta]:
        """Yield what every token adds, until all choices are finished.

        Raises:
            Exception: what made a sequence fail; the others are cancelled.
        """
        try:
            while self._open:
                number, event = await self._mailbox.get()
                if number not in self._open:
                    continue
                if isinstance(event, FailedEvent):
                    raise event.error
                if self._call.echoes and number not in self._echoed:
                    async with aclosing(self._echo(number)) as parts:
                        async for part in parts:
                            yield part
                yield self._delta(number, event.sampled, event.finish_reason)
        finally:
            self.close()

    async def _echo(self, number: int) -> AsyncGenerator[Delta]:
        """Yield a choice's prompt in parts; its first token has come, so it is computed."""
        self._echoed.add(number)
        stream = self._service.text.stream(())
        tokens = echoed(self.sequences[number], self._call.num_logprobs)
        text = self._call.echoes[number]
        while part := tuple(islice(tokens, _ECHOED_AT_ONCE)):
            places = tuple(stream.push(one.token).place for one in part)
            yield Delta(number, text, part, None, is_echo=True, places=places)
            text = ""
            await asyncio.sleep(0)  # other requests go on meanwhile

    def _delta(self, number: int, sampled: Sampled, finish_reason: str | None) -> Delta:
        stream = self._streams[number]
        sampling = self._generations[number].sequence.sampling
        if not sampling.max_tokens:  # the token behind the prompt was not asked for
            self._open.discard(number)
            return Delta(number, "", (), "length")
        if finish_reason == "stop" and sampled.token in sampling.stop_ids:
            piece = stream.end(sampled.token)
        else:
            piece = stream.push(sampled.token, is_last=finish_reason is not None)
        if piece.is_stopped:
            self._cancel(number, finish_reason)
            finish_reason = "stop"
        text, message = piece.text, None
        if self._messages:
            message = self._messages[number].push(text, is_last=finish_reason is not None)
            text = "".join(each.content for each in message)
            finish_reason = self._reason(number, finish_reason)
        if finish_reason:
            self._open.discard(number)
            self._reasons[number] = finish_reason
        places = (piece.place,)
        return Delta(number, text, (sampled,), finish_reason, places=places, message=message)

    def _reason(self, number: int, reason: str | None) -> str | None:
        """Return why a choice with calls has ended, if it has."""
        message = self._messages[number]
        if message.is_over:
            self._cancel(number, reason)
            return "tool_calls"
        return "tool_calls" if reason == "stop" and message.has_calls else reason

    def _cancel(self, number: int, reason: str | None) -> None:
        """End a choice's sequence, unless it has ended of its own for a reason."""
        if reason is None:
            self._service.runtime.cancel(self._generations[number])

    def num_cached(self, n: int) -> int:
        """Return how many prompt tokens were found computed; of `n` choices the first counts."""
        return sum(one.sequence.num_cached for one in self._generations[::n])

    def close(self) -> None:
        """Cancel what is not over."""
        for number in self._open:
            self._service.runtime.cancel(self._generations[number])
        self._open = set()
        over, self.on_over = self.on_over, None
        if over is not None:
            over()


def submit(service: Service, runs: Sequence[Run]) -> None:
    """Accept the sequences of all runs, to go side by side, or none of them.

    Raises:
        Overloaded, Draining: nothing was accepted.
    """
    requests = [request for run in runs for request in run.requests()]
    generations = iter(service.runtime.submit_all(requests))
    for run in runs:
        run.begin(list(islice(generations, run.num_choices)))


async def finish(run: Run) -> list[Choice]:
    """Return every choice once all are finished."""
    choices = [Choice() for _ in range(run.num_choices)]
    async for delta in run.deltas():
        choice = choices[delta.choice]
        choice.pieces.append(delta.text)
        choice.sampled += delta.sampled
        choice.places += delta.places
        choice.num_echoed += len(delta.sampled) - delta.num_generated
        choice.finish_reason = delta.finish_reason
        if delta.message is not None:
            choice.message = choice.message or []
            choice.message += delta.message
    return choices
