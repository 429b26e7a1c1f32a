"""From a checked request to a job: its base, task, method, targets and files must fit each other.

What needs the base's tokenizer or weights is checked by the job itself, before its first step.
"""

import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

import adapters_core.methods  # noqa: F401  (registers the methods)
from adapters_core.base.spec import BaseSpec
from adapters_core.contract.method import Method
from adapters_core.contract.method_registry import registered
from adapters_core.contract.peft_config import PeftConfig
from adapters_core.errors import AdapterError, InvalidAdapter, UnknownMethod
from adapters_core.format.training_config import job_config
from adapters_core.format.training_layers import trained_layers
from registry import (
    AdapterNotFound,
    FileNotFound,
    FileRecord,
    JobError,
    JobRecord,
    JobSpec,
    Registry,
)
from registry.jobs.spec import AUTO, METRICS, PEFT_TASKS, Task
from server.api.callers import Caller
from server.api.job_schemas import RESERVED_METADATA, AdapterRequest, JobRequest
from server.base.kinds import Kind
from server.errors import InvalidRequest
from server.service import Service

#: The config is stored in the job, and twice in the record of the version that it makes.
MAX_CONFIG_BYTES = 8 * 1024
#: What a base of each kind can learn and then serve; the first where a job does not say.
_TASKS: Mapping[Kind, tuple[Task, ...]] = {
    "causal LM": ("causal_lm",),
    "text classifier": ("sequence_classification", "regression"),
    "image classifier": ("image_classification",),
    "embedder": (),
}
#: Which forms of examples a task reads.
_FORMS: Mapping[Task, frozenset[str]] = {
    "causal_lm": frozenset({"chat", "completion", "text", "label"}),
    "sequence_classification": frozenset({"label"}),
    "regression": frozenset({"label"}),
    "image_classification": frozenset({"image"}),
}


def file_job(service: Service, body: JobRequest, caller: Caller) -> JobRecord:
    """File a job and queue it; a job with files that do not fit is filed with state `failed`.

    Raises:
        InvalidRequest, AdapterError: a field does not fit the base; `param` names it.
        AdapterNotFound: the model is not this server's base.
        FileNotFound: a file is not there, or not this tenant's.
        QuotaExceeded: the tenant has as many jobs as it may.
    """
    registry, tenant = service.registry, caller.tenant
    spec = _spec_of(service, body, caller)
    given = {"training_file": spec.training_file, "validation_file": spec.validation_file}
    files = {
        n: own_file_for(registry, id_, tenant, "fine-tune", n)
        for n, id_ in given.items()
        if id_ is not None
    }
    job = registry.jobs.create(spec, now=time.time(), limits=service.tenant_limits.of(tenant))
    fault = next((f for f in (_unfit(spec, n, r) for n, r in files.items()) if f), None)
    if fault is not None:
        return registry.jobs.refuse(job.id, fault, now=time.time())
    return registry.jobs.queue(job.id, now=time.time())


def own_file(registry: Registry, id_: str, tenant: str) -> FileRecord:
    """Return a file of the tenant; files of other tenants are not found.

    Raises:
        FileNotFound: there is none.
    """
    record = registry.files.get(id_)
    if record.created_by != tenant:
        raise FileNotFound(f"no file {id_!r}")
    return record


def own_file_for(registry: Registry, id_: str, tenant: str, purpose: str, param: str) -> FileRecord:
    """Return a file of the tenant that was uploaded for this purpose.

    Raises:
        FileNotFound: there is none.
        InvalidRequest: it is for something else; `param` names the field that gave it.
    """
    record = own_file(registry, id_, tenant)
    if record.purpose != purpose:
        message = f"file {id_!r} is for {record.purpose!r}; upload it for {purpose!r}"
        raise InvalidRequest(message, param)
    return record


def _spec_of(service: Service, body: JobRequest, caller: Caller) -> JobSpec:
    adapter, base = body.adapter, service.base.spec
    _check_model(service, body.model, caller.space)
    for key in sorted(RESERVED_METADATA & body.metadata.keys()):
        message = f"metadata: the key {key!r} is the record's own; use another"
        raise InvalidRequest(message, f"metadata.{key}")
    id_ = f"ftjob-{secrets.token_hex(12)}"
    name = adapter.name or body.suffix or f"{base.name}-{id_[-8:]}"
    if name == base.name:
        raise InvalidRequest(f"{name!r} is the base's own name", "adapter.name")
    _check_max_length(service, body)
    task = _task(service, adapter.task)
    _check_method(adapter, base, task)
    _check_gate(adapter, task)
    return JobSpec(
        id=id_,
        name=name,
        base_name=base.name,
        base_fingerprint=base.fingerprint,
        task=task,
        training_file=body.training_file,
        validation_file=body.validation_file,
        method=adapter.method,
        method_config=adapter.config,
        hyperparameters=body.chosen,
        seed=secrets.randbelow(1 << 31) if body.seed is None else body.seed,
        alias=adapter.alias,
        publish_if=adapter.publish_if.chosen() if adapter.publish_if else None,
        move_latest=adapter.move_latest,
        created_by=caller.tenant,
        metadata=dict(body.metadata),
        space=caller.space,
    )


def _check_model(service: Service, model: str, space: str) -> None:
    name = service.base.spec.name
    if model == name:
        return
    try:
        service.registry.adapters_of(space).resolve(model)
    except AdapterNotFound:
        message = f"no model {ascii(model[:120])} here to train on; this server's base is {name!r}"
        raise AdapterNotFound(message) from None
    message = f"model {model!r} is an adapter; jobs train on the base, {name!r}"
    raise InvalidRequest(message, "model")


def _task(service: Service, wanted: Task | None) -> Task:
    kind = service.base.kind
    possible = _TASKS[kind]
    if not possible:
        raise InvalidRequest(
            "this server embeds texts, and an embedder cannot be trained; serve the base with "
            "--task classify to train classifiers on it",
            "model",
        )
    if wanted is not None and wanted not in possible:
        message = f"adapter.task = {wanted!r}: this base is a {kind}; it learns {possible[0]}"
        raise InvalidRequest(message, "adapter.task")
    config: Any = service.base.model.config
    is_regression = getattr(config, "problem_type", None) == "regression"
    usual: Task = "regression" if is_regression and "regression" in possible else possible[0]
    return wanted or usual


def _check_max_length(service: Service, body: JobRequest) -> None:
    length, most = body.chosen.max_length, service.base.max_length
    if length is not None and service.base.kind != "image classifier" and length > most:
        message = f"max_length = {length}, but base {service.base.spec.name!r} takes {most} tokens"
        raise InvalidRequest(message, "method.supervised.hyperparameters.max_length")


def _check_gate(adapter: AdapterRequest, task: Task) -> None:
    """Refuse a gate on a metric that the task does not measure, or without an alias."""
    gate = adapter.publish_if
    if gate is None:
        return
    if adapter.alias is None:
        message = "publish_if decides about an alias; give adapter.alias too"
        raise InvalidRequest(message, "adapter.publish_if")
    if gate.metric not in METRICS[task]:
        known = ", ".join(METRICS[task])
        message = f"adapter.publish_if.metric = {gate.metric!r}: {task} measures {known}"
        raise InvalidRequest(message, "adapter.publish_if.metric")


def _check_method(adapter: AdapterRequest, base: BaseSpec, task: Task) -> None:
    """Refuse an unknown method, a field that training does not use, layers of another base.

    Raises:
        UnknownMethod, InvalidAdapter: `param` names the field.
    """
    kinds = registered()
    if adapter.method != AUTO and adapter.method not in kinds:
        known = ", ".join([*sorted(kinds), AUTO])
        message = f"adapter.method = {adapter.method!r} is not known; known: {known}"
        raise UnknownMethod(message, "adapter.method")
    try:
        text = json.dumps(adapter.config, allow_nan=False)
    except ValueError as error:
        raise InvalidAdapter(f"adapter.config is not JSON: {error}", "adapter.config") from error
    if len(text) > MAX_CONFIG_BYTES:
        message = f"adapter.config has {len(text)} bytes; at most {MAX_CONFIG_BYTES} are taken"
        raise InvalidAdapter(message, "adapter.config")
    if adapter.method == AUTO:
        if adapter.config:
            message = "adapter.config: method auto chooses it; leave it out, or name a method"
            raise InvalidAdapter(message, "adapter.config")
        return
    kind, own = kinds[adapter.method], adapter.config
    try:
        config = job_config(kind, own, PEFT_TASKS[task])
        _check_values(kind, own, config, trained_layers(config, base), base)
    except AdapterError as error:
        param = "adapter.config" + (f".{error.param}" if error.param else "")
        raise type(error)(error.message, param) from error


def _check_values(
    kind: type[Method],
    own: Mapping[str, Any],
    config: PeftConfig,
    targets: list[str],
    base: BaseSpec,
) -> None:
    """Refuse values that the method refuses; what the presets give is the job's to check."""
    try:
        for target in targets:
            method = kind.from_peft(config, target, {})
            shape = base.targets[target]
            method.fitted(shape).tensors(shape)
    except AdapterError as error:
        if error.param in own or kind.pattern_fields.get(error.param or "") in own:
            raise


def _unfit(spec: JobSpec, param: str, record: FileRecord) -> JobError | None:
    """Return why a file cannot be trained on, if that is known already."""
    shown = str(record.facts.get("shown") or "")
    if shown:
        return JobError("invalid_training_file", f"{param}: {shown}", param)
    forms = record.facts.get("forms") or {}
    wrong = sorted(set(forms) - _FORMS[spec.task])
    if wrong:
        wanted = ", ".join(sorted(_FORMS[spec.task]))
        message = f"{param}: {forms[wrong[0]]} of its examples are {wrong[0]} examples; "
        message += f"{spec.task} reads {wanted}"
        return JobError("invalid_training_file", message, param)
    return None
