"""What is asked of a model that writes: completions, chats, comparisons."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from .. import _comparisons as comparisons
from .. import _requests as requests
from .. import _responses as responses
from ..types import (
    ChatChunk,
    ChatCompletion,
    ComparedChunk,
    Comparison,
    Completion,
    CompletionChunk,
    Messages,
    Prompt,
)
from .sender import AsyncSender


class AsyncAnswerCalls:
    """The client's methods that ask a model."""

    _sender: AsyncSender

    async def complete(self, model: str, prompt: Prompt, **params: Any) -> Completion:
        """Continue a text.

        Args:
            model: the base's name, or `NAME`, `NAME@3`, `NAME@prod`, `NAME@sha256:…`.
            prompt: a text, several texts, or token ids.
            params: OpenAI's, e.g. `max_tokens=32, temperature=0`; None leaves one out.
        """
        answer = await self._sender.send(requests.complete(model, prompt, params))
        return responses.parse_completion(answer)

    async def chat(self, model: str, messages: Messages, **params: Any) -> ChatCompletion:
        """Answer a chat of `{"role": …, "content": …}`; the rest as in `complete`."""
        answer = await self._sender.send(requests.chat(model, messages, params))
        return responses.parse_chat(answer)

    def stream_complete(
        self, model: str, prompt: Prompt, **params: Any
    ) -> AsyncGenerator[CompletionChunk, None]:
        """As `complete`, piece by piece; closing the generator cancels the request.

        The last piece has the usage and no choice.
        """
        call = requests.streamed(requests.complete(model, prompt, params))
        return self._sender.stream(call, responses.to_completion_chunk)

    def stream_chat(
        self, model: str, messages: Messages, **params: Any
    ) -> AsyncGenerator[ChatChunk, None]:
        """As `chat`, piece by piece; closing the generator cancels the request."""
        call = requests.streamed(requests.chat(model, messages, params))
        return self._sender.stream(call, responses.to_chat_chunk)

    async def compare(
        self,
        models: Sequence[str],
        prompt: Prompt | None = None,
        *,
        messages: Messages | None = None,
        **params: Any,
    ) -> Comparison:
        """Ask several models the same, side by side in one batch.

        Args:
            models: up to sixteen names as in `complete`; one that fails has an error for an answer.
            prompt: a text, several texts, or token ids.
            messages: a chat instead of a prompt.
            params: as in `complete`.
        """
        call = comparisons.compare(models, prompt, messages, params)
        return comparisons.parse_comparison(await self._sender.send(call))

    def stream_compare(
        self,
        models: Sequence[str],
        prompt: Prompt | None = None,
        *,
        messages: Messages | None = None,
        **params: Any,
    ) -> AsyncGenerator[ComparedChunk, None]:
        """As `compare`, piece by piece; closing the generator cancels the request."""
        call = requests.streamed(comparisons.compare(models, prompt, messages, params))
        return self._sender.stream(call, comparisons.to_compared_chunk)
