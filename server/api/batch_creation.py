"""From a checked request to a batch: its file, its endpoint and the base must fit each other."""

import time

from registry import BatchRecord, BatchSpec
from server.api.batch_schemas import BatchCreation
from server.api.callers import Caller
from server.api.job_creation import own_file_for
from server.base.kinds import Kind
from server.errors import Overloaded
from server.service import Service

PURPOSE = "batch"
_WINDOW_S = 86_400.0
_RETRY_AFTER_S = 30
#: What each kind of base answers.
ENDPOINTS_OF: dict[Kind, tuple[str, ...]] = {
    "causal LM": ("/v1/completions", "/v1/chat/completions", "/v1/responses"),
    "text classifier": ("/v1/classify",),
    "image classifier": ("/v1/classify",),
    "embedder": ("/v1/embeddings",),
}


def create_batch(service: Service, body: BatchCreation, caller: Caller) -> BatchRecord:
    """Create a batch; what is wrong with its file's lines makes it `failed` a moment later.

    Raises:
        FileNotFound: its file is not there, or not this tenant's.
        InvalidRequest: the file is no batch's, or this base does not answer the endpoint.
        Overloaded: the tenant has too many batches that are not over.
    """
    registry, tenant = service.registry, caller.tenant
    file = own_file_for(registry, body.input_file_id, tenant, PURPOSE, "input_file_id")
    if body.endpoint not in ENDPOINTS_OF[service.base.kind]:
        raise service.wrong_base("endpoint")
    open_ = registry.batches.open(service.base.spec.name)
    count, most = sum(one.spec.created_by == tenant for one in open_), service.settings.max_batches
    if count >= most:
        message = f"{count} batches are not over, the limit is {most}; wait, or cancel one"
        raise Overloaded(message, retry_after_s=_RETRY_AFTER_S)
    spec = BatchSpec(
        endpoint=body.endpoint,
        input_file=file.id,
        base_name=service.base.spec.name,
        window_s=_WINDOW_S,
        created_by=tenant,
        metadata=body.metadata,
        space=caller.space,
    )
    return registry.batches.create(spec, int(file.facts["num_requests"]), now=time.time())


def caller_of(spec: BatchSpec) -> Caller:
    """Return the caller that a batch's requests count for; its key was asked for already."""
    return Caller(spec.created_by, (), None, spec.space)
