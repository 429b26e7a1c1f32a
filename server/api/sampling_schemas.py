"""The fields of completions and chat completions that say how tokens are chosen.

Names, ranges and values that change nothing are OpenAI's and vLLM's.
"""

from typing import Annotated, Self

from pydantic import Field, model_validator

from server.api.request_body import OpenAIBody
from server.api.token_lists import Token
from server.api.validation import unsupported
from server.base.sampling_defaults import MinP, RepetitionPenalty, Share, Temperature, TopK

MAX_CHOICES = 128

#: Of frequency and presence.
Penalty = Annotated[float, Field(ge=-2, le=2)]


class SamplingFields(OpenAIBody):
    """How tokens are chosen, and which tokens end an answer.

    The base's values are those of its generation_config.json; GET /v1/models/{model} has them.

    Args:
        n: answers for each prompt.
        best_of: accepted only as 1 or n: all answers are given, none is chosen.
        temperature: 0 takes the likeliest token; missing: the base's, or 1.
        top_k: only so many of the likeliest tokens, 0 or -1 for all; missing: the base's, or all.
        top_p: only the likeliest tokens that have this share together; missing: the base's,
            or 1.
        min_p: only tokens that are at least this share as likely as the likeliest; missing: the
            base's, or 0.
        typical_p: only the tokens with this share together whose surprise is nearest to the one
            that is expected; missing: the base's, or 1.
        frequency_penalty: taken from a token's logit for each time that the answer has it.
        presence_penalty: taken from the logits of tokens that the answer has.
        repetition_penalty: divides the logits, where positive, of tokens that prompt or answer
            have, and multiplies them where negative; missing: the base's, or 1.
        logit_bias: token id -> what is added to its logit, before any penalty.
        seed: the same seed gives the same answer; missing: a random one.
        min_tokens: no token ends an answer before so many were generated.
        stop_token_ids: tokens that end an answer as an end token does; also with `ignore_eos`.
        ignore_eos: go on after an end token.
    """

    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] = 1
    best_of: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    temperature: Temperature | None = None
    top_k: TopK | None = None
    top_p: Share | None = None
    min_p: MinP | None = None
    typical_p: Share | None = None
    frequency_penalty: Penalty = 0
    presence_penalty: Penalty = 0
    repetition_penalty: RepetitionPenalty | None = None
    logit_bias: (
        Annotated[
            dict[Annotated[int, Field(ge=0)], Annotated[float, Field(ge=-100, le=100)]],
            Field(max_length=1024),
        ]
        | None
    ) = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    stop_token_ids: Annotated[tuple[Token, ...], Field(max_length=1024)] = ()
    ignore_eos: bool = False

    @model_validator(mode="after")
    def _give_all_choices(self) -> Self:
        if self.best_of not in (None, 1, self.n):
            message = (
                f"best_of = {self.best_of} is not supported: leave it out, or give n = {self.n}"
            )
            raise unsupported("best_of", message)
        return self
