"""POST /tokenize and /detokenize, GET /tokenizer_info: the base's tokenizer, as vLLM serves it."""

import asyncio
from functools import partial
from typing import cast

from fastapi import APIRouter, Request, Response

from server.api.answerer import resolve
from server.api.bodies.tokens import Detokenized, Tokenized, TokenizerInfo
from server.api.callers import Caller
from server.api.chats import chat_of
from server.api.describe import INFER, LIMITED, RESOLVES, SERVES, answer, describe
from server.api.json_answer import json_answer
from server.api.request import json_body, service_of
from server.api.token_schemas import DetokenizeRequest, TokenizeRequest
from server.errors import Overloaded, PromptTooLong
from server.service import Service

router = APIRouter(tags=["inference"])


@router.post(
    "/tokenize",
    **describe(
        "createTokens",
        answer(Tokenized),
        body=TokenizeRequest,
        errors=(*RESOLVES, *LIMITED, PromptTooLong, Overloaded),
        scopes=INFER,
    ),
)
async def tokenize(request: Request) -> Response:
    """Return the tokens of a prompt or of a conversation, as an answer to it would see them."""
    service, body = service_of(request), await json_body(request, TokenizeRequest)
    field = "prompt" if body.messages is None else "messages"
    service.text.lengths.check_chars(body.size, field)
    made = await service.tokenizing.run(
        body.size, partial(_tokenized, service, body, request.state.caller)
    )
    return await json_answer(made)


def _tokenized(service: Service, body: TokenizeRequest, caller: Caller) -> Tokenized:
    _check_model(service, body.model, caller)
    text = service.text
    if body.prompt is not None:
        tokens = text.tokens_of(body.prompt, body.add_special_tokens is not False)
    else:
        tokens = text.chat_prompt(chat_of(body.chat))
    return {
        "count": len(tokens),
        "max_model_len": service.max_length,
        "tokens": list(tokens),
        "token_strs": text.vocabulary_texts(tokens) if body.return_token_strs else None,
    }


@router.post(
    "/detokenize",
    **describe(
        "createText",
        answer(Detokenized),
        body=DetokenizeRequest,
        errors=(*RESOLVES, *LIMITED),
        scopes=INFER,
    ),
)
async def detokenize(request: Request) -> Detokenized:
    """Return the text that tokens say."""
    service, body = service_of(request), await json_body(request, DetokenizeRequest)
    return await asyncio.to_thread(_detokenized, service, body, request.state.caller)


def _detokenized(service: Service, body: DetokenizeRequest, caller: Caller) -> Detokenized:
    _check_model(service, body.model, caller)
    return {"prompt": service.text.decoded(body.tokens)}


@router.get(
    "/tokenizer_info",
    **describe("getTokenizerInfo", answer(TokenizerInfo), errors=(*SERVES, *LIMITED), scopes=INFER),
)
async def tokenizer_info(request: Request) -> TokenizerInfo:
    """Say what the base's tokenizer is: its special tokens and its chat template."""
    service = service_of(request)
    told = {"model_max_length": service.max_length, **service.text.description}
    return cast(TokenizerInfo, told)


def _check_model(service: Service, name: str | None, caller: Caller) -> None:
    """Check that there is such a model; all have the base's tokens.

    Raises:
        AdapterNotFound: there is not.
    """
    if name is not None:
        resolve(service, name, caller.space)
