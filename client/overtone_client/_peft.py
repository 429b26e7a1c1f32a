"""An adapter that is in memory, as the bytes that PEFT's `save_pretrained` would write.

What made the adapter is imported here when it is needed: this package itself needs neither PEFT
nor torch.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from .errors import InvalidArgument


class PeftModelLike(Protocol):
    """What is needed of a `peft.PeftModel`."""

    @property
    def peft_config(self) -> Any:
        """The config of each adapter, by the adapter's name."""

    @property
    def active_adapter(self) -> Any:
        """The name of the adapter in use."""


def taken(
    source: PeftModelLike | Mapping[str, Any], config: Any, adapter: str | None
) -> tuple[bytes, dict[str, Any]]:
    """A coefficient file's bytes, and the content of its adapter_config.json.

    Args:
        source: a PeftModel, or tensors (torch's or numpy's) by name.
        config: of tensors.
        adapter: of a PeftModel.

    Raises:
        InvalidArgument: the source is neither, it has no such adapter, or a config is missing.
    """
    if isinstance(source, Mapping):
        if config is None:
            raise InvalidArgument("tensors alone are no adapter: give the PeftConfig as `config`")
        return _saved(source), _fields(config)
    if not hasattr(source, "peft_config"):
        kind = type(source).__name__
        raise InvalidArgument(f"{kind} is neither a PeftModel nor a dictionary of tensors")
    if config is not None:
        raise InvalidArgument("a PeftModel has its config: leave `config` out")
    return _of_model(source, adapter)


def _of_model(model: PeftModelLike, adapter: str | None) -> tuple[bytes, dict[str, Any]]:
    from peft import get_peft_model_state_dict

    name = str(model.active_adapter) if adapter is None else adapter
    if name not in model.peft_config:
        known = ", ".join(map(repr, model.peft_config))
        raise InvalidArgument(f"the model has no adapter {name!r}; it has {known}")
    tensors = get_peft_model_state_dict(model, adapter_name=name)
    fields = _fields(model.peft_config[name])
    if fields.get("base_model_name_or_path") is None:
        fields["base_model_name_or_path"] = getattr(model, "name_or_path", None) or None
    return _saved(tensors), fields


def _saved(tensors: Mapping[str, Any]) -> bytes:
    try:
        if not any(type(tensor).__module__.startswith("torch") for tensor in tensors.values()):
            from safetensors.numpy import save as save_arrays

            return bytes(save_arrays(dict(tensors)))
        from safetensors.torch import save
    except ImportError as error:
        raise InvalidArgument(f"{error}: pip install safetensors") from error
    # Copies, because a file of safetensors holds no tensor twice.
    copies = {name: one.detach().cpu().contiguous().clone() for name, one in tensors.items()}
    return bytes(save(copies, metadata={"format": "pt"}))


def _fields(config: Any) -> dict[str, Any]:
    given = config if isinstance(config, Mapping) else config.to_dict()
    # Sorted: a set's order differs between processes, and the config belongs to the digest.
    fields = {
        key: sorted(value) if isinstance(value, set) else value for key, value in given.items()
    }
    return {**fields, "inference_mode": True}
