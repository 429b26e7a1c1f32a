"""The events of a response, from those of the chat that answers it."""

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from itertools import count
from typing import Any, ClassVar

from server.api.responses.form import ResponseForm, call_item, message_item, text_part

Json = dict[str, Any]


async def response_events(
    form: ResponseForm, chat: AsyncGenerator[Json], error_body: Callable[[Exception], Json]
) -> AsyncGenerator[Json]:
    """Yield the events of a response; after an error, the last one says that it has failed.

    Args:
        form: of the response.
        chat: the chat's events, the last of them with the usage; closed with this.
        error_body: makes the body of an error.
    """
    numbers, output = count(), Output()
    try:
        async with aclosing(_events(form, chat, output)) as events:
            async for event in events:
                yield _numbered(event, next(numbers))
    except Exception as error:
        failed = form.failed(error_body(error), output.items)
        yield _numbered(_lifecycle("failed", failed), next(numbers))


async def _events(
    form: ResponseForm, chat: AsyncGenerator[Json], output: "Output"
) -> AsyncGenerator[Json]:
    yield _lifecycle("created", form.begun())
    yield _lifecycle("in_progress", form.begun())
    chunk: Json = {}
    async with aclosing(chat):
        async for chunk in chat:
            for event in output.take(chunk):
                yield event
    for event in output.finish():
        yield event
    whole = form.ended(chunk, output.items, output.reason)
    yield _lifecycle(whole["status"], whole)


def _lifecycle(status: str, response: Json) -> Json:
    return {"type": f"response.{status}", "response": response}


def _numbered(event: Json, number: int) -> Json:
    return {"type": event["type"], "sequence_number": number, **event}


class _Open:
    """An item that is not complete yet; `name` is that of its events, `place` where it is."""

    name: ClassVar[str]

    def __init__(self, item: Json, index: int) -> None:
        self.item = item
        self.place = {"item_id": item["id"], "output_index": index}
        self._index = index
        self._pieces: list[str] = []

    @property
    def whole(self) -> str:
        """Return what the pieces are together."""
        return "".join(self._pieces)

    def begin(self) -> Iterator[Json]:
        """Yield the events before its first piece."""
        item = {**self.item, "status": "in_progress"}
        yield {"type": "response.output_item.added", "output_index": self._index, "item": item}

    def piece(self, text: str) -> Json:
        """Take a piece and return its event."""
        self._pieces.append(text)
        return {"type": f"response.{self.name}.delta", **self.place, "delta": text}

    def end(self, status: str) -> Iterator[Json]:
        """Yield the events behind its last piece; the item is complete."""
        self.item["status"] = status
        yield {
            "type": "response.output_item.done",
            "output_index": self._index,
            "item": self.item,
        }


class _OpenText(_Open):
    name = "output_text"

    def __init__(self, index: int) -> None:
        super().__init__(message_item(""), index)
        self.place["content_index"] = 0

    def begin(self) -> Iterator[Json]:
        self.item["content"] = []
        yield from super().begin()
        part = text_part("")
        yield {"type": "response.content_part.added", **self.place, "part": part}

    def piece(self, text: str) -> Json:
        return super().piece(text) | {"logprobs": []}

    def end(self, status: str) -> Iterator[Json]:
        text = self.whole
        part = text_part(text)
        self.item["content"] = [part]
        done = {"type": "response.output_text.done", **self.place}
        yield done | {"text": text, "logprobs": []}
        yield {"type": "response.content_part.done", **self.place, "part": part}
        yield from super().end(status)


class _OpenCall(_Open):
    name = "function_call_arguments"

    def end(self, status: str) -> Iterator[Json]:
        self.item["arguments"] = arguments = self.whole
        done = {"type": "response.function_call_arguments.done", **self.place}
        yield done | {"name": self.item["name"], "arguments": arguments}
        yield from super().end(status)


class Output:
    """The items of an output, from the pieces of a chat's one choice.

    `items` are those that are complete; `reason` is why the choice has ended.
    """

    def __init__(self) -> None:
        self.items: list[Json] = []
        self.reason: str | None = None
        self._open: _Open | None = None
        self._call: int | None = None  # the number of the open call in its message

    def take(self, chunk: Json) -> Iterator[Json]:
        """Yield what an event of the chat adds."""
        for choice in chunk["choices"]:
            self.reason = choice["finish_reason"] or self.reason
            delta = choice["delta"]
            if delta.get("content"):
                yield from self._text(delta["content"])
            for call in delta.get("tool_calls") or ():
                yield from self._function(call)

    def finish(self) -> Iterator[Json]:
        """Yield the end of the last item; there is at least one, be it empty."""
        if self._open is None:
            yield from self._begin(_OpenText(0))
        yield from self._close("incomplete" if self.reason == "length" else "completed")

    def _text(self, text: str) -> Iterator[Json]:
        if not isinstance(self._open, _OpenText):
            yield from self._begin(_OpenText(self._next))
        yield from self._piece(text)

    def _function(self, call: Json) -> Iterator[Json]:
        function = call.get("function", {})
        if call["index"] != self._call:
            self._call = call["index"]
            yield from self._begin(
                _OpenCall(call_item(call["id"], function["name"], ""), self._next)
            )
        if function.get("arguments"):
            yield from self._piece(function["arguments"])

    @property
    def _next(self) -> int:
        return len(self.items) + (self._open is not None)

    def _piece(self, text: str) -> Iterator[Json]:
        if self._open is not None:
            yield self._open.piece(text)

    def _begin(self, item: _Open) -> Iterator[Json]:
        yield from self._close("completed")
        self._open = item
        yield from item.begin()

    def _close(self, status: str) -> Iterator[Json]:
        if self._open is not None:
            yield from self._open.end(status)
            self.items.append(self._open.item)
