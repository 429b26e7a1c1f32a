"""A sentence-transformers folder's changes of a text before the tokenizer.

`sentence_bert_config.json` (older folders: by the body's name) says whether texts become lower case
and how long they may be; `config_sentence_transformers.json` has prompts, one of which may stand
before every text. A setting that is not known here, with a value, refuses the base by its name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from server.errors import InvalidRequest

#: Files with the settings of a folder's Transformer; the first that is there counts.
_BODY_FILES = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_MODEL_FILE = "config_sentence_transformers.json"
#: Fields that change no vector.
_NEUTRAL = frozenset({"__version__", "similarity_fn_name", "unpad_inputs"})
#: Fields with the only values that are served.
_ONLY: Mapping[str, tuple[Any, ...]] = {
    "model_type": ("SentenceTransformer",),
    "transformer_task": ("feature-extraction",),
    "module_output_name": ("token_embeddings",),
    "modality_config": (
        {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    ),
}


@dataclass(frozen=True)
class Preparation:
    """Changes of a text before the tokenizer; by default none.

    Args:
        strip: whether white space at both ends is removed.
        lower: whether letters become lower case.
        prompts: name -> text that is put before a text.
        default: the prompt's name for a request that names none.
        max_length: tokens that the folder allows; None if it has no limit.
    """

    strip: bool = False
    lower: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default: str | None = None
    max_length: int | None = None

    def prompt(self, name: str | None) -> str:
        """Return the text to put before a text, for the prompt's name in the request.

        Raises:
            InvalidRequest: the base has no prompt of this name.
        """
        chosen = self.default if name is None else name
        if chosen is None:
            return ""
        if chosen not in self.prompts:
            known = ", ".join(map(repr, self.prompts)) or "none"
            message = f"prompt_name = {chosen[:80]!r}; this base's prompts are {known}"
            raise InvalidRequest(message, "prompt_name")
        return self.prompts[chosen]

    def prepared(self, text: str, prompt: str = "") -> str:
        """Return the text that is tokenized."""
        whole = prompt + text
        whole = whole.strip() if self.strip else whole
        return whole.lower() if self.lower else whole


def preparation_of(json_of: Callable[[str], Any]) -> Preparation:
    """Return the preparation that a sentence-transformers folder configures.

    Args:
        json_of: returns the content of one of the folder's files, None if it is not there.

    Raises:
        ValueError: a setting is malformed or not served; the message names it.
    """
    body_file, body = "", {}
    for name in _BODY_FILES:
        found = json_of(name)
        if found is not None:
            body_file, body = name, _object(found, name)
            break
    model = _object(json_of(_MODEL_FILE) or {}, _MODEL_FILE)
    _refuse_unknown(body, body_file, {"max_seq_length", "do_lower_case"})
    _refuse_unknown(model, _MODEL_FILE, {"prompts", "default_prompt_name"})
    prompts, default = model.get("prompts") or {}, model.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(isinstance(p, str) for p in prompts.values()):
        raise ValueError(f"{_MODEL_FILE}: prompts is not an object of texts")
    if default is not None and default not in prompts:
        raise ValueError(f"{_MODEL_FILE}: default_prompt_name = {default!r} is none of its prompts")
    length, lower = body.get("max_seq_length"), body.get("do_lower_case") or False
    if not isinstance(lower, bool):
        raise ValueError(f"{body_file}: do_lower_case = {lower!r} is not true or false")
    if length is not None and not (type(length) is int and length > 0):
        raise ValueError(f"{body_file}: max_seq_length = {length!r} is no number of tokens")
    return Preparation(True, lower, prompts, default, length)


def _object(given: Any, name: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise ValueError(f"{name} is not a JSON object")
    return given


def _refuse_unknown(given: Mapping[str, Any], file: str, known: set[str]) -> None:
    for name, value in given.items():
        if name in known or name in _NEUTRAL or value in (None, False, {}, []):
            continue
        if value in _ONLY.get(name, ()):
            continue
        served = f"; served is {_ONLY[name][0]!r}" if name in _ONLY else ", which is not served"
        raise ValueError(f"{file} asks for {name} = {str(value)[:80]!r}{served}")
