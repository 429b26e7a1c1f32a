"""Figures of texts: the served model's loss over the tokens that training would learn."""

import queue
from collections.abc import Iterator, Mapping
from typing import Any

from adapters_core.tokens.ends import end_ids
from registry.examples.lm_texts import LMTexts
from registry.examples.scores import text_figures
from server.adapters.modes import Mode
from server.api.answerer import Answerer
from server.errors import InternalError, Overloaded
from server.evaluation.example_errors import example_error
from server.generation.runtime import Event, FailedEvent, Generation, SequenceRequest
from server.scheduling.sequence import Sampling
from server.service import Service

#: Texts of one evaluation in the engine at a time.
_AT_ONCE = 16

Row = tuple[int, Mapping[str, Any]]


class TextFigures:
    """The figures of a causal LM.

    Args:
        service: that generates.
        answerer: the base, or a version of an adapter.
        tenant: that the requests count for.
        max_length: texts are cut to it; None refuses longer ones than the base takes.
    """

    def __init__(
        self, service: Service, answerer: Answerer, tenant: str, max_length: int | None
    ) -> None:
        self._service, self._answerer, self._tenant = service, answerer, tenant
        self._cuts = max_length is not None
        self._max_length = min(max_length or service.max_length, service.max_length)
        tokenizer = service.base.tokenizer
        self._texts = LMTexts(tokenizer, end_ids(service.base.model, tokenizer))
        self._open: dict[int, Generation] = {}
        self._over: queue.SimpleQueue[tuple[int, Event]] = queue.SimpleQueue()
        self._loss, self._count, self._right = 0.0, 0, 0
        self.mode: Mode | None = None

    def answers(self, rows: Iterator[Row]) -> Iterator[int]:
        """Score the texts of every example; yield how many examples were read."""
        try:
            for done, (line, row) in enumerate(rows):
                for number, (ids, wanted) in enumerate(self._wanted(line, row)):
                    self._ask(done * 65536 + number, ids, wanted)
                yield done
            while self._open:
                self._take()
            yield done + 1
        finally:
            for generation in self._open.values():
                self._service.runtime.cancel(generation)

    def figures(self) -> dict[str, float]:
        """Return loss, perplexity and the share of tokens that no other is likelier than."""
        return text_figures(self._loss, self._count, self._right)

    def _wanted(self, line: int, row: Mapping[str, Any]) -> list[tuple[list[int], dict[int, int]]]:
        """Return each text of an example, and position -> the token that is scored behind it."""
        try:
            texts = self._texts.of(row)
        except ValueError as error:
            raise example_error(line, error) from error
        longest = max(len(text.ids) for text in texts)
        if longest > self._max_length and not self._cuts:
            size = self._max_length
            raise example_error(
                line, f"has {longest} tokens, {size} are taken; give max_length to cut"
            )
        pairs = [(text.ids, text.wanted(self._max_length)) for text in texts]
        return [(ids[: max(wanted) + 1], wanted) for ids, wanted in pairs if wanted]

    def _ask(self, number: int, prompt: list[int], wanted: dict[int, int]) -> None:
        while len(self._open) >= _AT_ONCE:
            self._take()
        sampling = Sampling(max_tokens=1, temperature=0, scored=wanted)
        while number not in self._open:
            try:
                request = SequenceRequest(
                    tuple(prompt), sampling, self._answerer.digest, self._tenant, mode=self.mode
                )
                generation = self._service.runtime.submit(
                    request, lambda event: self._over.put((number, event))
                )
            except Overloaded:  # by the tenant's other requests, or by these
                if not self._open:
                    raise
                self._take()
                continue
            self._open[number], self.mode = generation, generation.mode
            self._service.meter.spend(self._tenant, len(prompt))

    def _take(self) -> None:
        """Wait for one text and add it up."""
        number, event = self._over.get()
        generation = self._open.pop(number)
        if isinstance(event, FailedEvent):
            raise event.error
        sequence = generation.sequence
        if len(sequence.scores) != len(sequence.sampling.scored):
            raise InternalError("the engine has not scored every token")
        self._loss -= sum(one.logprob for one in sequence.scores.values())
        self._count += len(sequence.scores)
        self._right += sum(one.is_likeliest for one in sequence.scores.values())
