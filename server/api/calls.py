"""From a checked body to a call: `model` resolved, prompts tokenized. Needs no HTTP request.

Both functions tokenize, and may ask the registry: they run beside the event loop.
"""

from server.api.answerer import resolve
from server.api.chat_schemas import ChatRequest
from server.api.completion_schemas import CompletionRequest, GenerationRequest
from server.api.generation import GenerationCall
from server.errors import InvalidRequest
from server.service import Service

_DEFAULT_MAX_TOKENS = 16


def completion_call(service: Service, body: CompletionRequest, tenant: str) -> GenerationCall:
    """Return the call of a body of POST /v1/completions.

    Raises:
        AdapterNotFound, RegistryUnavailable, BaseMismatch: as `resolve` does.
        InvalidRequest: a prompt has no tokens, or one that does not exist.
    """
    answerer = resolve(service, body.model)
    tokens = [service.text.prompt(prompt) for prompt in body.prompts]
    return GenerationCall(
        body,
        answerer,
        prompts=[prompt for prompt in tokens for _ in range(body.n)],
        max_tokens=body.max_tokens or _DEFAULT_MAX_TOKENS,
        num_logprobs=body.logprobs,
        tenant=tenant,
        timeout_s=_timeout_s(service, body),
    )


def chat_call(service: Service, body: ChatRequest, tenant: str) -> GenerationCall:
    """Return the call of a body of POST /v1/chat/completions.

    Raises:
        AdapterNotFound, RegistryUnavailable, BaseMismatch: as `resolve` does.
        InvalidRequest: the base has no chat template, or it refuses these messages.
    """
    if body.top_logprobs is not None and not body.logprobs:
        raise InvalidRequest("top_logprobs needs logprobs: true", "top_logprobs")
    answerer = resolve(service, body.model)
    prompt = service.text.chat_prompt([message.plain() for message in body.messages])
    return GenerationCall(
        body,
        answerer,
        prompts=[prompt] * body.n,
        max_tokens=body.max_completion_tokens or body.max_tokens,
        num_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        tenant=tenant,
        timeout_s=_timeout_s(service, body),
    )


def _timeout_s(service: Service, body: GenerationRequest) -> float | None:
    return body.timeout_s or service.settings.request_timeout_s
