"""Bodies of comparisons: those of completions and chats, with several models for one."""

from typing import Annotated, Any, ClassVar

from pydantic import Field

from server.api.chat_schemas import ChatRequest
from server.api.completion_schemas import CompletionRequest

MAX_MODELS = 16

Models = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=256)]],
    Field(min_length=1, max_length=MAX_MODELS),
]


class CompareCompletions(CompletionRequest):
    """Prompts that several models complete.

    Args:
        models: names as in `model`: the base, and adapters.
        seed: missing: a random one, the same for all models.
    """

    example = {"models": ["BASE", "NAME"], "prompt": "Once upon a time", "max_tokens": 16}

    model: ClassVar[str] = ""  # type: ignore[misc]  # `models` stands for it
    models: Models


class CompareChats(ChatRequest):
    """A conversation that several models answer.

    Args:
        models: names as in `model`: the base, and adapters.
        seed: missing: a random one, the same for all models.
    """

    example = {"models": ["BASE", "NAME"], "messages": [{"role": "user", "content": "Hello"}]}

    model: ClassVar[str] = ""  # type: ignore[misc]
    models: Models


CompareRequest = CompareCompletions | CompareChats


def kind_of(given: Any) -> type[CompareCompletions] | type[CompareChats]:
    """Return which of the two a parsed JSON body is."""
    return CompareChats if isinstance(given, dict) and "messages" in given else CompareCompletions
