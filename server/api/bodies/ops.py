"""Health, version, models, workers."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from adapters_core.base.kinds import Kind
from server.api.bodies.files import ListPage


class Live(TypedDict):
    """The process runs."""

    status: Literal["live"]


class Ready(TypedDict):
    """Requests are taken; `base` names the base."""

    status: Literal["ready"]
    base: str


class BaseName(TypedDict):
    """A base."""

    name: str
    fingerprint: str


class Canary(TypedDict):
    """The check of transforms on this machine.

    Args:
        checked: how many transforms were compared with a direct sum.
        rerouted: those that another kernel computes here, with their shapes.
    """

    checked: int
    rerouted: list[tuple[str, list[int]]]


class Calibration(TypedDict):
    """What rows cost on this device, where modes are planned.

    Args:
        seconds: that measuring took.
        milliseconds_by_rows: what was measured -> number of rows -> milliseconds.
    """

    seconds: float
    milliseconds_by_rows: dict[str, dict[str, float]]


class Memory(TypedDict):
    """Bytes of the device's memory that may be taken beside the base.

    Args:
        kv_bytes: for keys and values.
        coefficient_bytes: for factored adapters' coefficients.
        basis_bytes: for bases that adapters share.
        merged_bytes: for merged weights.
    """

    kv_bytes: int
    coefficient_bytes: int
    basis_bytes: int
    merged_bytes: int


class Version(TypedDict):
    """What runs here.

    Args:
        max_length: tokens of prompt and answer together that fit.
        memory: set aside at start.
    """

    version: str
    base: BaseName
    max_length: int
    canary: Canary
    calibration: Calibration | None
    memory: Memory


class LeftOut(TypedDict):
    """A linear that no adapter may change, and why."""

    module: str
    reason: str


class SamplingDefaults(TypedDict):
    """What a request gets for the sampling parameters that it leaves out."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    repetition_penalty: float


class AdapterFacts(TypedDict):
    """What requests to an adapter get from the base.

    Args:
        sampling_defaults: of a base that generates.
    """

    sampling_defaults: SamplingDefaults


class BaseFacts(TypedDict):
    """What the base takes.

    Args:
        kind: what the base is for.
        chats: it has a chat template, so that it answers conversations.
        left_out: linears that no adapter may change.
        shared: linears that see what all inputs of a batch share.
        pads: texts of different lengths may be one batch.
        prompts: of an embedder, name -> text that is put before an input.
        default_prompt_name: of an embedder.
        sampling_defaults: of a base that generates.
    """

    kind: Kind
    chats: bool
    left_out: list[LeftOut]
    shared: list[str]
    pads: bool
    prompts: NotRequired[dict[str, str]]
    default_prompt_name: NotRequired[str | None]
    sampling_defaults: NotRequired[SamplingDefaults]


class Model(TypedDict):
    """What can be named as `model`: the base, or an adapter.

    Args:
        created: seconds since 1970.
        root: the base.
        parent: the base of an adapter; null for the base.
        overtone: of the base; of an adapter only where it is asked for alone.
    """

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    parent: str | None
    overtone: NotRequired[BaseFacts | AdapterFacts]


class ModelList(ListPage):
    """The base, then adapters in the order of their names: all, or the page that was asked for.

    Args:
        has_more: there is a page after this one: ask with `after` = `last_id`.
        first_id: id of the first entry.
        last_id: id of the last entry.
    """

    data: list[Model]


class Worker(TypedDict):
    """A trainer worker that is alive.

    Args:
        model: the base of the jobs that it takes.
        device: on which it trains.
        is_busy: it has a job.
        started_at: seconds since 1970.
    """

    object: Literal["worker"]
    id: str
    model: str
    device: str
    is_busy: bool
    started_at: int


class WorkerList(TypedDict):
    """The workers with a heartbeat within half a minute."""

    object: Literal["list"]
    data: list[Worker]
