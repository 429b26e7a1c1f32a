"""What is deployed: the arguments of the application, as a configuration of Ray Serve has them."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from server.settings import BadSetting, Settings, read_settings

Number = Annotated[int, Field(ge=1, le=10_000)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Replicas(_Part):
    """How many replicas a base has: `least`, or up to `most` by the time that requests wait."""

    least: Number = 1
    most: Number | None = None
    queue_s: Annotated[float, Field(gt=0)] = 0.5
    """What requests may wait on average before there are more replicas."""
    add_after_s: Annotated[float, Field(ge=0)] = 30.0
    """For so long they must have waited longer than that."""
    remove_after_s: Annotated[float, Field(ge=0)] = 600.0
    """For so long they must have waited less than a quarter of it."""

    @model_validator(mode="after")
    def _most_is_more(self) -> "Replicas":
        if self.most is not None and self.most < self.least:
            raise ValueError(f"most ({self.most}) is less than least ({self.least})")
        return self


class Workers(_Part):
    """Workers that train jobs of a base, one job at a time each."""

    number: Annotated[int, Field(ge=0, le=10_000)] = 0
    actor: dict[str, Any] = {"num_cpus": 1}
    """Ray's options of each actor: num_cpus, num_gpus, memory, resources."""


class Base(_Part):
    """A base and what serves it."""

    settings: dict[str, Any]
    """Of its servers, by their names; what is secret stands in the environment instead."""
    replicas: Replicas = Replicas()
    actor: dict[str, Any] = {"num_cpus": 1}
    """Ray's options of each replica: num_cpus, num_gpus, memory, resources."""
    workers: Workers = Workers()

    @field_validator("settings")
    @classmethod
    def _fit_for_replicas(cls, given: dict[str, Any]) -> dict[str, Any]:
        read = _read(given)
        if read.base_name is None:
            raise ValueError("base_name is missing: what requests call the base")
        if read.registry == "embedded":
            raise ValueError("registry is missing: replicas share one, redis://HOST:PORT")
        if {"host", "port"} & set(given):
            raise ValueError("host and port are Ray Serve's: give them as http_options")
        return given

    @property
    def name(self) -> str:
        """Return what requests call the base."""
        return str(self.read.base_name)

    @property
    def read(self) -> Settings:
        """Return its settings with those of the environment."""
        return _read(self.settings)


class Plan(_Part):
    """All bases, the first of which takes the requests that name none."""

    bases: Annotated[list[Base], Field(min_length=1)]
    ingresses: Number = 1
    """Replicas of the ingress, which holds nothing but open requests."""
    affinity: bool = True
    """Whether an adapter's requests go to replicas that had it before, while these have room."""

    @field_validator("bases")
    @classmethod
    def _of_different_names(cls, bases: list[Base]) -> list[Base]:
        names = [base.name for base in bases]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two bases are called {twice[0]!r}: give each its own base_name")
        return bases


def _read(given: dict[str, Any]) -> Settings:
    try:
        return read_settings(**given)
    except BadSetting as error:
        raise ValueError(str(error)) from error
