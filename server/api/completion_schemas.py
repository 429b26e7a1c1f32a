"""Bodies of completions, what chats share with them, and their checks.

A parameter that is not supported is refused by name, unless it has the value that changes nothing.
Numbers have caps: a request must not be able to ask for unbounded work.
"""

from typing import Annotated, Any, ClassVar

from pydantic import Field

from server.api.constraint_schemas import ConstraintFields
from server.api.request_body import OpenAIBody, RequestBody
from server.api.sampling_schemas import MAX_CHOICES, SamplingFields
from server.api.token_lists import Tokens
from server.generation.text_stream import TextForm

MAX_LOGPROBS = 20
#: OpenAI takes four; tasks of evaluation harnesses name more.
MAX_STOPS = 16

#: Parameters of OpenAI's API that are accepted only with these values.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "suffix": ("",),
    "functions": ([],),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "store": (False,),
    # About the caller; they do not change what is computed.
    "user": (...,),
    "metadata": (...,),
    "safety_identifier": (...,),
    "prompt_cache_key": (...,),
}

Prompts = Annotated[list[str | Tokens], Field(min_length=1, max_length=MAX_CHOICES)]
StopString = Annotated[str, Field(min_length=1, max_length=256)]


class StreamOptions(OpenAIBody):
    """Extras of a streamed answer.

    Args:
        include_usage: one more event, with the token counts and no choice.
        include_obfuscation: taken, and of no effect.
    """

    neutral = {"continuous_usage_stats": (False,)}

    include_usage: bool = False
    include_obfuscation: bool = False


class GenerationRequest(SamplingFields, ConstraintFields):
    """What completions and chat completions share.

    Args:
        model: the base's name, or an adapter's: `NAME`, `NAME@3`, `NAME@prod`, `NAME@sha256:…`.
        stop: texts before which an answer ends, special tokens among them; at most 16.
        include_stop_str_in_output: end the answer with the text in `stop` that ended it.
        skip_special_tokens: leave special tokens out of the text; missing: true.
        stream: answer in server-sent events.
        stream_options: extras of a streamed answer.
        timeout_s: seconds after which the request fails; missing: the server's setting.
        return_token_ids: give the tokens of each answer, too.
        prompt_logprobs: log-probabilities of the prompt's tokens, each with so many alternatives;
            not with `stream`.
    """

    neutral = _NEUTRAL
    prompt_field: ClassVar[str]
    """The field that has what is to be answered."""
    usual_max_tokens: ClassVar[int | None] = None
    """Of an answer if the request says nothing, as far as they fit; None for all that fit."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    stop: StopString | Annotated[list[StopString], Field(max_length=MAX_STOPS)] | None = None
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True
    stream: bool = False
    stream_options: StreamOptions | None = None
    timeout_s: Annotated[float, Field(gt=0, le=86_400)] | None = None
    return_token_ids: bool = False
    prompt_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None

    @property
    def text_sizes(self) -> list[int]:
        """Return the characters of each text that is tokenized for it."""
        raise NotImplementedError

    @property
    def text_form(self) -> TextForm:
        """Return what of its tokens becomes an answer's text."""
        stops = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return TextForm(stops, self.include_stop_str_in_output, self.skip_special_tokens)


class CompletionRequest(GenerationRequest):
    """Prompts to complete.

    Args:
        prompt: a text, several, token ids, or several lists of them.
        max_tokens: of each answer; missing: 16, or as many as fit; 0 computes the prompt alone.
        logprobs: log-probabilities of the chosen tokens and of so many alternatives.
        echo: begin each answer with its prompt; with `logprobs` its tokens have theirs, too.
    """

    example = {"model": "BASE", "prompt": "Once upon a time", "max_tokens": 16}
    prompt_field = "prompt"
    usual_max_tokens = 16

    prompt: Annotated[str | Tokens | Prompts, Field(union_mode="left_to_right")]
    max_tokens: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    echo: bool = False

    @property
    def text_sizes(self) -> list[int]:
        """Return the characters of each prompt that is a text."""
        return [len(prompt) for prompt in self.prompts if isinstance(prompt, str)]

    @property
    def prompts(self) -> list[str | list[int]]:
        """Return the prompts, one or many."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]
        return self.prompt


class AliasRequest(RequestBody):
    """Where an alias is to point.

    Args:
        version: a version's number.
    """

    example = {"version": 1}

    version: Annotated[int, Field(ge=1)]
