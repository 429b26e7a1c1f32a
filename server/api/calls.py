"""From a checked body to a call: `model` resolved, prompts tokenized. Needs no HTTP request.

What makes calls tokenizes, and may ask the registry: it runs beside the event loop (`tokenized`).
"""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from server.api.answerer import Answerer, resolve
from server.api.callers import Caller
from server.api.chat_schemas import ChatRequest
from server.api.chats import chat_of, constraint_of, tool_use_of
from server.api.completion_schemas import CompletionRequest, GenerationRequest
from server.api.generation import GenerationCall
from server.errors import InvalidRequest
from server.service import Service

B = TypeVar("B", bound=GenerationRequest)
T = TypeVar("T")


async def tokenized(
    service: Service, body: B, caller: Caller, calls_of: Callable[[Service, B, Caller], T]
) -> T:
    """Return what `calls_of` makes of a body, on a thread; short texts wait for no long ones.

    Args:
        service: that answers it.
        body: has the texts.
        caller: that it counts for.
        calls_of: `completion_call`, `chat_call`, or what calls them.

    Raises:
        PromptTooLong: a text is too long for the base; that is known before any work.
        Overloaded: too many long texts wait.
        Exception: as `calls_of` does.
    """
    sizes = body.text_sizes
    for size in sizes:
        service.text.lengths.check_chars(size, body.prompt_field)
    work = partial(calls_of, service, body, caller)
    return await service.tokenizing.run(sum(sizes), work)


def completion_call(
    service: Service, body: CompletionRequest, caller: Caller, answerer: Answerer | None = None
) -> GenerationCall:
    """Return the call of a body of POST /v1/completions, answered by `answerer` if one is given.

    Raises:
        AdapterNotFound, RegistryUnavailable, BaseMismatch: as `resolve` does.
        InvalidRequest: a prompt has no tokens, or one that does not exist.
    """
    answerer = answerer or resolve(service, body.model, caller.space)
    tokens = [service.text.prompt(prompt) for prompt in body.prompts]
    texts = [_text(service, prompt) for prompt in body.prompts] if body.echo else []
    return GenerationCall(
        body,
        answerer,
        prompts=[prompt for prompt in tokens for _ in range(body.n)],
        max_tokens=body.max_tokens,
        num_logprobs=body.logprobs,
        num_prompt_logprobs=_num_prompt_logprobs(body, body.logprobs if body.echo else None),
        echoes=[text for text in texts for _ in range(body.n)],
        tenant=caller.tenant,
        timeout_s=_timeout_s(service, body),
        constraint=body.constraint,
    )


def chat_call(
    service: Service, body: ChatRequest, caller: Caller, answerer: Answerer | None = None
) -> GenerationCall:
    """Return the call of a body of POST /v1/chat/completions, answered by `answerer` if given.

    Raises:
        AdapterNotFound, RegistryUnavailable, BaseMismatch: as `resolve` does.
        InvalidRequest: the base has no chat template, or it refuses these messages.
    """
    if body.top_logprobs is not None and not body.logprobs:
        raise InvalidRequest("top_logprobs needs logprobs: true", "top_logprobs")
    answerer = answerer or resolve(service, body.model, caller.space)
    use = tool_use_of(body, service.text.template)
    prompt = service.text.chat_prompt(chat_of(body))
    return GenerationCall(
        body,
        answerer,
        prompts=[prompt] * body.n,
        max_tokens=body.max_completion_tokens or body.max_tokens,
        num_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        num_prompt_logprobs=_num_prompt_logprobs(body, None),
        tenant=caller.tenant,
        timeout_s=_timeout_s(service, body),
        tool_use=use,
        constraint=constraint_of(body, service.text.template),
    )


def _text(service: Service, prompt: str | list[int]) -> str:
    return prompt if isinstance(prompt, str) else service.text.text_of(prompt)


def _timeout_s(service: Service, body: GenerationRequest) -> float | None:
    return body.timeout_s or service.settings.request_timeout_s


def _num_prompt_logprobs(body: GenerationRequest, echoed: int | None) -> int | None:
    """Return how many alternatives are wanted with each token of a prompt; None for no scores."""
    if body.stream and body.prompt_logprobs is not None:
        message = "prompt_logprobs are not given in a stream: leave stream out"
        raise InvalidRequest(message, "prompt_logprobs")
    asked = [count for count in (body.prompt_logprobs, echoed) if count is not None]
    return max(asked, default=None)
