"""Why a base cannot be loaded, in one sentence, from any library's exception."""

_LONGEST = 400


class BaseNotLoadable(Exception):
    """The base cannot be loaded; the message says what to do."""


def words_for(source: str, error: Exception) -> str:
    """Return one sentence for an exception of transformers or of a file's reader."""
    said = " ".join(str(error).split())[:_LONGEST]
    if type(error).__name__ == "SafetensorError":
        why = f"a weights file is cut off or is no safetensors file ({said}): copy it once more"
    elif isinstance(error, ImportError):
        why = f"it needs a package that is not installed ({said})"
    elif isinstance(error, OSError | ValueError):
        why = said
    else:
        why = f"{type(error).__name__}: {said}"
    return (
        f"base {source!r} cannot be loaded: {why.rstrip('.')}. A base is a folder with "
        "config.json, model.safetensors and tokenizer.json, or a hub id"
    )
