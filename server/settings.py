"""The server's settings: flag, then environment `OVERTONE_<NAME>`, then default."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_serializer, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from server.adapters.modes import ModeSetting
from server.base.kinds import ServingTask
from server.telemetry.process_log import LogFormat

if TYPE_CHECKING:
    from registry.common.limits import Limits

_GIB = 1 << 30


class BadSetting(Exception):
    """A setting has a value that cannot be used; the message names it."""


class Settings(BaseSettings):
    """One frozen object per process; components receive plain values from it."""

    model_config = SettingsConfigDict(
        env_prefix="OVERTONE_", frozen=True, extra="forbid", use_attribute_docstrings=True
    )

    base: str
    """Folder, GGUF file or hub id of the base."""
    base_name: str | None = None
    """What requests call the base; its folder's or file's name if not given."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """Port to listen on; 0 takes a free one."""
    load_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Another port, which answers GET /metrics/load alone, and without a key."""
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Names that a server without keys answers to beside its own, separated by commas; `*`: any."""
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Sites with pages that may use the server, as `https://app.example`, by commas; `*`: any."""
    allow_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """More of the same: another name of `cors_origins`."""
    registry: str = "embedded"
    """`embedded`, or `redis://HOST:PORT`. With a password better in the environment."""
    registry_password: SecretStr | None = None
    """The registry's password, if its URL has none; not a flag."""
    registry_password_file: Path | None = None
    """File whose first line is the registry's password."""
    data: Path = Path.home() / ".overtone"
    """Folder of the embedded registry, the blobs and what is kept of bases."""
    store: str | None = None
    """Folder of the blobs, if not in the data folder; or s3://BUCKET/PREFIX."""
    store_cache_bytes: Annotated[int, Field(ge=1 << 20)] = 10 * _GIB
    """Bytes of a bucket's blobs that are kept in the data folder, about."""
    mode: ModeSetting | None = None
    """`factored` or `merged` for all, `auto`: by cost and traffic; if not given, `auto` on a CPU,
    `factored` on a GPU."""
    deterministic: bool = False
    """One mode per adapter for its life, so that answers repeat bit by bit."""
    calibration_s: Annotated[float, Field(ge=0, le=600)] = 1.5
    """Seconds that measuring this device may take at start; 0 measures nothing."""
    task: ServingTask = "auto"
    """`auto` (by the base), `generate`, `classify` or `embed`."""
    generation_config: bool = True
    """Take the base's generation_config.json for sampling parameters that a request leaves out."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1` …"""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the base; `auto` is float32 on a CPU, bfloat16 on a GPU that has it, else float16."""
    device_share: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Of a GPU's memory; two servers on one GPU need a share each."""
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """`NAME=SECRET` with the tenant's name, separated by commas; each may do everything."""
    require_keys: bool = False
    """Ask for a key also while there is none, neither in `api_keys` nor in the registry."""
    allow_keyless: bool = False
    """Listen beyond this machine without asking for keys: all that reach it may do everything."""
    key_grace_s: Annotated[float, Field(ge=0, le=30 * 86_400)] = 3600.0
    """How long keys of the registry that were used before are accepted while it is away."""
    tenant_limits: str = ""
    """Of tenants without limits of their own: `tokens_per_minute=100000,running_requests=8`."""
    audit_log: Path | None = None
    """File to which a line of JSON is added for every change of state; the log, if not given."""
    max_running: Annotated[int, Field(ge=1, le=4096)] = 64
    """Sequences that run at a time."""
    max_waiting: Annotated[int, Field(ge=0, le=1_000_000)] = 512
    """Sequences of one tenant that may wait beyond these; more are refused with 429."""
    max_step_tokens: Annotated[int, Field(ge=16, le=65536)] = 512
    """Token rows of one step; long prompts are cut to fit."""
    max_age_s: Annotated[float, Field(gt=0, le=86_400)] = 30.0
    """Seconds after which a waiting sequence comes before all others."""
    request_timeout_s: Annotated[float, Field(gt=0, le=86_400)] | None = None
    """Time of a request that names none itself; none if not given."""
    prefix_cache: bool = True
    """Keep the pages of prompts for prompts that begin the same."""
    tenant_header: str | None = None
    """Header in which a trusted gateway names the tenant."""
    kv_bytes: Annotated[int, Field(ge=1 << 20)] | None = None
    """For keys and values; 2 GiB on a CPU, a part of its memory on a GPU."""
    coefficient_bytes: Annotated[int, Field(ge=1 << 10)] | None = None
    """For adapters' coefficients on the device; 1 GiB on a CPU, a part on a GPU."""
    host_bytes: Annotated[int, Field(ge=0)] = _GIB // 2
    """For coefficients that were evicted from the device."""
    basis_bytes: Annotated[int, Field(ge=1 << 10)] | None = None
    """For bases that adapters' transforms share; 4 GiB on a CPU, a part on a GPU."""
    merged_bytes: Annotated[int, Field(ge=0)] | None = None
    """For merged weights; 0 merges nothing; 2 GiB on a CPU, a part on a GPU."""
    client_stall_s: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    """How long a caller may pause while it sends a request or reads an answer."""
    grace_s: Annotated[float, Field(ge=0, le=86_400)] = 30.0
    """How long requests may go on after SIGTERM."""
    registry_grace_s: Annotated[float, Field(ge=0, le=86_400)] = 30.0
    """How long the registry may be away before /health/ready fails."""
    max_upload_bytes: Annotated[int, Field(ge=1 << 10)] = _GIB // 2
    """Of one coefficient file."""
    max_training_file_bytes: Annotated[int, Field(ge=1 << 10)] = 2 * _GIB
    """Of one file to train on."""
    reserve_bytes: Annotated[int, Field(ge=0)] = 64 << 20
    """Left free on the disks of store and registry; with less, only deletions are accepted."""
    with_worker: bool = False
    """Start a trainer worker beside the server, and end it with the server."""
    worker_threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """Of that worker's jobs."""
    worker_nice: Annotated[int, Field(ge=0, le=19)] = 19
    """Nice value of its jobs: at 19 they use the processor time that serving leaves."""
    run_batches: bool = True
    """Run batches of requests in the room that other requests leave."""
    batch_slowdown: Annotated[float, Field(ge=0, le=1)] = 0.05
    """By which share a batch may make others' steps longer; 0 runs it only while there are none."""
    batch_lost_after_s: Annotated[float, Field(ge=1, le=3600)] = 20.0
    """A batch with a server that is silent for so long goes on at another one."""
    max_batch_requests: Annotated[int, Field(ge=1, le=1_000_000)] = 50_000
    """Requests of one batch."""
    max_batch_file_bytes: Annotated[int, Field(ge=1 << 10)] = 200 << 20
    """Of one file of requests."""
    max_batches: Annotated[int, Field(ge=1, le=1000)] = 64
    """Batches of one tenant that are not over; more are refused with 429."""
    log_format: LogFormat = "text"
    """Of the log on standard error: `text`, or `json`: an object a line."""
    log_requests: bool = False
    """Write a line for every request below /v1 once it was answered."""
    traces: bool = False
    """Send traces of requests by OTLP to where OTEL_EXPORTER_OTLP_ENDPOINT names."""
    trace_prompts: bool = False
    """Show the texts of prompts in traces."""
    max_image_pixels: Annotated[int, Field(ge=1)] = 1 << 24
    """Of one image to classify."""
    max_body_bytes: Annotated[int, Field(ge=1 << 10)] = 8 << 20
    """Of any other request."""

    @property
    def registry_url(self) -> str:
        """The registry with its password, wherever that was given.

        Raises:
            InvalidArgument: it was given twice, or its file cannot be read.
        """
        from registry.redis.address import password_in, with_password  # not at every `--help`

        given = self.registry_password
        password = None if given is None else given.get_secret_value()
        if self.registry_password_file is not None:
            password = password_in(self.registry_password_file)
        return with_password(self.registry, password)

    @property
    def all_origins(self) -> tuple[str, ...]:
        """The sites with pages that may use the server, under both names of the setting."""
        return tuple(dict.fromkeys([*self.cors_origins, *self.allow_origins]))

    @property
    def default_limits(self) -> "Limits":
        """The limits of tenants that have none of their own in the registry."""
        from registry.common.limits import Limits

        return Limits.read(self.tenant_limits)

    @field_serializer("registry")
    def _masked(self, value: str) -> str:
        """Hide passwords wherever settings are shown."""
        from registry.redis.address import masked

        return masked(value)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        shown = self.model_dump(include={"registry"})
        return ((name, shown.get(str(name), value)) for name, value in super().__repr_args__())

    @field_validator("base", "data", "registry_password_file", "audit_log", mode="before")
    @classmethod
    def _at_home(cls, value: Any) -> Any:
        """Expand `~/x`, which shells do not after `--data=` and in files of variables."""
        is_at_home = isinstance(value, str) and value.startswith("~")
        return str(Path(value).expanduser()) if is_at_home else value

    @field_validator("store", mode="before")
    @classmethod
    def _a_place(cls, value: Any) -> Any:
        """Check how the store is named; a folder may come as a path."""
        if value is None:
            return None
        from registry.errors import InvalidArgument
        from registry.objects.place import store_place

        try:
            return str(store_place(value, Path()))
        except InvalidArgument as error:
            raise ValueError(error.message) from error

    @field_validator("api_keys", "allowed_hosts", "cors_origins", "allow_origins", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """Read a comma-separated list: an environment variable is text."""
        if not isinstance(value, str):
            return value
        return tuple(key.strip() for key in value.split(",") if key.strip())

    @field_validator("allowed_hosts")
    @classmethod
    def _names_alone(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name != "*" and not re.fullmatch(r"[\w.-]+|\[?[\da-fA-F:.]+\]?", name):
                raise ValueError(
                    f"{name!r} is no host: give its name without scheme, port and path"
                )
        return tuple(name.strip("[]") for name in value)

    @field_validator("cors_origins", "allow_origins")
    @classmethod
    def _origins_alone(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin not in ("*", "null") and not re.fullmatch(r"[\w.+-]+://[^/\s]+", origin):
                raise ValueError(
                    f"{origin!r} is no origin: give SCHEME://HOST[:PORT] without a path"
                )
        return tuple(origin.lower() for origin in value)  # as browsers write it

    @field_validator("api_keys")
    @classmethod
    def _of_one_tenant_each(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        from server.api_keys import read_keys

        read_keys([key.get_secret_value() for key in value])
        return value


class SettingsOfMachine(Settings):
    """The same where no base is needed; it is the empty text if none is given."""

    base: str = ""


def read_settings(**flags: Any) -> Settings:
    """Return the settings; flags that are None were not given.

    Raises:
        BadSetting: a value is missing or out of range; names the setting, never a secret.
    """
    return _read(Settings, flags)


def read_settings_of_machine(**flags: Any) -> Settings:
    """Return the same where no base is needed.

    Raises:
        BadSetting: likewise.
    """
    return _read(SettingsOfMachine, flags)


def _read(kind: type[Settings], flags: dict[str, Any]) -> Settings:
    from registry.errors import InvalidArgument

    try:
        settings = kind(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        raise BadSetting(f"setting {_named(str(first['loc'][0]))}: {first['msg']}") from error
    try:
        _ = settings.registry_url
    except InvalidArgument as error:
        raise BadSetting(f"setting {_named('registry')}: {error.message}") from error
    try:
        _ = settings.default_limits
    except InvalidArgument as error:
        raise BadSetting(f"setting {_named('tenant_limits')}: {error.message}") from error
    return settings


def _named(name: str) -> str:
    return f"{name} (--{name.replace('_', '-')}, OVERTONE_{name.upper()})"
