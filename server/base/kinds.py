"""A base's kind, from its config.json alone; the model is not loaded for it."""

from typing import Any, Literal

from adapters_core.base.kinds import Kind

__all__ = ["USES", "Kind", "ServingTask", "kind_of"]

ServingTask = Literal["auto", "generate", "classify", "embed"]

#: What each kind serves, for a request to another kind's route.
USES: dict[Kind, str] = {
    "causal LM": "it generates text: /v1/completions and /v1/chat/completions",
    "text classifier": "it classifies texts: /v1/classify, and with one label /v1/rerank",
    "image classifier": "it classifies images: /v1/classify",
    "embedder": "it embeds texts: /v1/embeddings",
}
#: Ends of architectures with a head that is not served; the body can be.
_HEADLESS = ("ForMaskedLM", "ForPreTraining")


def kind_of(config: Any, task: ServingTask, is_sentence_transformer: bool) -> Kind:
    """Return the kind of the base with this config.

    Args:
        config: transformers' config.
        task: the setting; `auto` goes by `architectures`.
        is_sentence_transformer: whether its folder has sentence-transformers' modules.json.

    Raises:
        ValueError: the config names no kind that is served; the message says what to set.
    """
    if task == "generate":
        return "causal LM"
    if task == "classify":
        return _classifier_kind(config.model_type)
    if task == "embed":
        return "embedder"
    name = str((getattr(config, "architectures", None) or [""])[0])
    if name.endswith("ForSequenceClassification"):
        return "text classifier"
    if name.endswith("ForImageClassification"):
        return "image classifier"
    if is_sentence_transformer or name.endswith(_HEADLESS) or _is_body(config, name):
        if _reads_images(config.model_type):
            raise ValueError(f"{name} has no head; set task to classify: adapters bring heads")
        return "embedder"
    return "causal LM"


def _is_body(config: Any, name: str) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    return bool(name) and MODEL_MAPPING_NAMES.get(config.model_type) == name


def _classifier_kind(model_type: str) -> Kind:
    return "image classifier" if _reads_images(model_type) else "text classifier"


def _reads_images(model_type: str) -> bool:
    from transformers.models.auto import modeling_auto

    return (
        model_type in modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
        and model_type not in modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    )
