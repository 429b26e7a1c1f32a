"""The fields of completions and chat completions that say how tokens are chosen."""

from typing import Annotated

from pydantic import Field

from server.api.request_body import OpenAIBody

MAX_CHOICES = 128


class SamplingFields(OpenAIBody):
    """How tokens are chosen, and which tokens end an answer.

    Args:
        n: answers for each prompt.
        temperature: 0 takes the likeliest token; missing: 1.
        top_p: only the likeliest tokens that have this share together; missing: 1.
        seed: the same seed gives the same answer; missing: a random one.
        logit_bias: token id -> what is added to its logit.
        ignore_eos: go on after an end token.
    """

    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] = 1
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    logit_bias: (
        Annotated[
            dict[Annotated[int, Field(ge=0)], Annotated[float, Field(ge=-100, le=100)]],
            Field(max_length=1024),
        ]
        | None
    ) = None
    ignore_eos: bool = False
