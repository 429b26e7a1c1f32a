"""The server's settings: flag, then environment `OVERTONE_<NAME>`, then default."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from server.planner import ModeSetting

_GIB = 1 << 30


class BadSetting(Exception):
    """A setting has a value that cannot be used; the message names it."""


class Settings(BaseSettings):
    """One frozen object per process; components receive plain values from it."""

    model_config = SettingsConfigDict(env_prefix="OVERTONE_", frozen=True, extra="forbid")

    base: str
    base_name: str | None = None
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    registry: str = "embedded"
    data: Path = Path.home() / ".overtone"
    store: Path | None = None
    mode: ModeSetting = "auto"
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    max_running: Annotated[int, Field(ge=1, le=4096)] = 64
    max_waiting: Annotated[int, Field(ge=0, le=1_000_000)] = 512
    max_step_tokens: Annotated[int, Field(ge=16, le=65536)] = 512
    kv_bytes: Annotated[int, Field(ge=1 << 20)] = 2 * _GIB
    coefficient_bytes: Annotated[int, Field(ge=1 << 10)] = _GIB
    basis_bytes: Annotated[int, Field(ge=1 << 10)] = 4 * _GIB
    merged_bytes: Annotated[int, Field(ge=0)] = 2 * _GIB
    max_upload_bytes: Annotated[int, Field(ge=1 << 10)] = _GIB // 2
    max_body_bytes: Annotated[int, Field(ge=1 << 10)] = 8 << 20

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """Take a comma-separated list, as an environment variable must be."""
        if not isinstance(value, str):
            return value
        return tuple(key.strip() for key in value.split(",") if key.strip())


def read_settings(**flags: Any) -> Settings:
    """Return the settings; flags that are None were not given.

    Raises:
        BadSetting: a value is missing or out of range; names the setting, never a secret.
    """
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise BadSetting(
            f"setting {name} (--{name.replace('_', '-')}, OVERTONE_{name.upper()}): {first['msg']}"
        ) from error
