"""What a request gets for the sampling parameters that it leaves out, and their ranges."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from server.base.load_errors import BaseNotLoadable

Temperature = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
TopK = Annotated[int, Field(ge=-1, lt=2**31)]
Share = Annotated[float, Field(gt=0, le=1)]
MinP = Annotated[float, Field(ge=0, le=1)]
RepetitionPenalty = Annotated[float, Field(gt=0, le=1000)]


class SamplingDefaults(BaseModel):
    """Values for what a request leaves out; those of this class cut and penalise nothing."""

    model_config = ConfigDict(frozen=True)

    temperature: Temperature = 1.0
    top_k: TopK = 0
    top_p: Share = 1.0
    min_p: MinP = 0.0
    typical_p: Share = 1.0
    repetition_penalty: RepetitionPenalty = 1.0


def sampling_defaults(model: Any) -> SamplingDefaults:
    """Return the defaults that a causal LM's generation_config.json gives, as far as it has any.

    Raises:
        BaseNotLoadable: a value is out of its range.
    """
    config = getattr(model, "generation_config", None)
    given = {name: getattr(config, name, None) for name in SamplingDefaults.model_fields}
    try:
        return SamplingDefaults(**{n: value for n, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        raise BaseNotLoadable(
            f"generation_config.json: {first['loc'][0]} = {first['input']!r}: {first['msg']}. "
            "Correct the file, or start with --no-generation-config"
        ) from error
