"""A response's shape: its frame, the items of its output, its usage."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from server.api.responses.schemas import ResponsesRequest
from server.base.sampling_defaults import SamplingDefaults

Json = dict[str, Any]

#: Type of an error -> OpenAI's code of a failed response; of others, `server_error`.
_CODES = {
    "invalid_request_error": "invalid_prompt",
    "not_found_error": "invalid_prompt",
    "rate_limit_error": "rate_limit_exceeded",
}


@dataclass(frozen=True)
class ResponseForm:
    """What a response and the events of its stream have in common.

    Args:
        body: of the request.
        defaults: the base's, for what the request leaves out.
    """

    body: ResponsesRequest
    defaults: SamplingDefaults
    id: str = field(default_factory=lambda: f"resp_{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def begun(self) -> Json:
        """Return the response before its output."""
        return self._frame("in_progress")

    def failed(self, error: Json, output: Sequence[Json] = ()) -> Json:
        """Return the response after an error, whose body is given."""
        fault = error["error"]
        told = {
            "code": _CODES.get(fault["type"], "server_error"),
            "message": fault["message"],
            "param": fault["param"],
            "type": fault["code"],
        }
        return self._frame("failed", output=list(output), error=told)

    def ended(self, chat: Json, output: Sequence[Json], reason: str | None) -> Json:
        """Return the whole response.

        Args:
            chat: its answer, or the last event of it; has the usage.
            output: the items.
            reason: why the chat's choice has ended.
        """
        is_cut = reason == "length"
        return self._frame(
            "incomplete" if is_cut else "completed",
            output=list(output),
            incomplete_details={"reason": "max_output_tokens"} if is_cut else None,
            usage=_usage(chat["usage"]),
            overtone=chat["overtone"],
        )

    def _frame(self, status: str, **known: Any) -> Json:
        body, defaults = self.body, self.defaults
        tools = [tool.model_dump() for tool in body.tools]
        choice = body.tool_choice
        frame: Json = {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata,
            "model": body.model,
            "output": [],
            "parallel_tool_calls": body.parallel_tool_calls,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "store": False,
            "temperature": defaults.temperature if body.temperature is None else body.temperature,
            "text": body.text.model_dump(by_alias=True, exclude_none=True),
            "tool_choice": choice if isinstance(choice, str) else choice.model_dump(),
            "tools": tools,
            "top_p": defaults.top_p if body.top_p is None else body.top_p,
            "truncation": "disabled",
            "usage": None,
        }
        return frame | known


def response_of(form: ResponseForm, chat: Json) -> Json:
    """Return the response of a whole chat."""
    (choice,) = chat["choices"]
    reason = choice["finish_reason"]
    return form.ended(chat, output_of(choice["message"], reason), reason)


def output_of(message: Json, reason: str | None) -> list[Json]:
    """Return the items of a whole chat's message."""
    calls = message.get("tool_calls") or []
    text = message.get("content") or ""
    items = [] if calls and not text else [message_item(text)]
    items += [
        call_item(call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in calls
    ]
    if reason == "length":
        items[-1]["status"] = "incomplete"
    return items


def message_item(text: str) -> Json:
    """Return a message of the output."""
    return {
        "id": f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [text_part(text)],
    }


def text_part(text: str) -> Json:
    """Return the content of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def call_item(call_id: str, name: str, arguments: str) -> Json:
    """Return a call of a function."""
    return {
        "id": f"fc_{uuid.uuid4().hex}",
        "type": "function_call",
        "status": "completed",
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
    }


def _usage(chat: Json) -> Json:
    cached = chat["prompt_tokens_details"]["cached_tokens"]
    return {
        "input_tokens": chat["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": chat["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": chat["total_tokens"],
    }
