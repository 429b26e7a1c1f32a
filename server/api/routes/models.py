"""GET /v1/models: what can be named as `model`, all of it or page by page, and one of them."""

import asyncio
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from registry import Record
from registry.common.spaces import shown_in, space_of
from server.api.answerer import resolve
from server.api.bodies.ops import BaseFacts, Model, ModelList, SamplingDefaults
from server.api.describe import ASKS_REGISTRY, INVALID, READS, RESOLVES, answer, describe
from server.api.pages import Page, paged
from server.api.parameters import After, MaybeLimit
from server.api.request import service_of
from server.errors import NotFound
from server.service import Service

router = APIRouter(tags=["models"])


@router.get(
    "/v1/models",
    **describe("listModels", answer(ModelList), errors=(*ASKS_REGISTRY, *INVALID), scopes=READS),
)
async def models(request: Request, limit: MaybeLimit = None, after: After = None) -> Response:
    """List the base, then the adapters in the order of their names: all, or page by page."""
    return await paged(partial(_page, request), limit, after)


@router.get(
    "/v1/models/{model:path}",
    **describe("getModel", answer(Model), errors=(*RESOLVES, NotFound), scopes=READS),
)
async def model(
    request: Request,
    model: Annotated[str, Path(description="Any name that a request may use.")],
) -> Model:
    """Show one model by any name a request may use."""
    service = service_of(request)
    space = request.state.caller.space
    answerer = await asyncio.to_thread(resolve, service, model, space)
    if answerer.record is None:
        return _base_model(service)
    shown: Model = {**_adapter_model(service, space, answerer.record), "id": model}
    defaults = _sampling_defaults(service)
    return {**shown, "overtone": {"sampling_defaults": defaults}} if defaults else shown


def _page(request: Request, limit: int, after: str | None) -> Page:
    """Return the models behind `after`; the base comes before all adapters."""
    service, space = service_of(request), request.state.caller.space
    own = [] if after else [_base_model(service)]
    behind = None if after == service.base.spec.name else after
    wanted = limit - len(own)
    entries = service.registry.adapters_of(space).list(wanted + 1, behind)
    found = [*own, *(_adapter_model(service, space, entry.latest) for entry in entries[:wanted])]
    ids = (found[0]["id"], found[-1]["id"]) if found else None
    return Page(found, ids, len(entries) > wanted)


def _base_model(service: Service) -> Model:
    spec = service.base.spec
    return {
        "id": spec.name,
        "object": "model",
        "created": int(service.started),
        "owned_by": "overtone",
        "root": spec.name,
        "parent": None,
        "overtone": _base_facts(service),
    }


def _base_facts(service: Service) -> BaseFacts:
    spec, pooling = service.base.spec, service.base.pooling
    tokenizer = service.base.tokenizer if service.base.kind == "causal LM" else None
    facts: BaseFacts = {
        "kind": service.base.kind,
        "chats": bool(getattr(tokenizer, "chat_template", None)),
        "left_out": [{"module": path, "reason": reason} for path, reason in spec.left_out.items()],
        "shared": [path for path in spec.targets if path in spec.shared],
        "pads": spec.pads,
    }
    if pooling is not None:  # what an embedder can put before its texts
        facts["prompts"] = dict(pooling.preparation.prompts)
        facts["default_prompt_name"] = pooling.preparation.default
    if (defaults := _sampling_defaults(service)) is not None:
        facts["sampling_defaults"] = defaults
    return facts


def _sampling_defaults(service: Service) -> SamplingDefaults | None:
    """Return what a request gets that leaves sampling parameters out; None for encoders."""
    if service.base.kind != "causal LM":
        return None
    of_base = service.sampling_defaults
    return {
        "temperature": of_base.temperature,
        "top_k": of_base.top_k,
        "top_p": of_base.top_p,
        "min_p": of_base.min_p,
        "typical_p": of_base.typical_p,
        "repetition_penalty": of_base.repetition_penalty,
    }


def _adapter_model(service: Service, space: str, record: Record) -> Model:
    """Return an adapter as a caller with these names sees it."""
    owner = space_of(record.name)
    owned_by = record.created_by if owner == space else owner
    return {
        "id": shown_in(space, record.name),
        "object": "model",
        "created": record.created_at,
        "owned_by": owned_by or "overtone",
        "root": service.base.spec.name,
        "parent": service.base.spec.name,
    }
