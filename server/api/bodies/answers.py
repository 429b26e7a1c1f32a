"""Answers of models: completions, chats, labels and vectors, in OpenAI's shapes."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict

FinishReason = Literal["stop", "length"]
ChatFinishReason = Literal["stop", "length", "tool_calls"]


class AnsweredBy(TypedDict):
    """What answered.

    Args:
        adapter: name of the adapter; null for the base.
        version: of the adapter.
        digest: of the version.
        mode: how its update was computed, or `base`.
    """

    adapter: str | None
    version: int | None
    digest: str | None
    mode: Literal["factored", "merged", "base"]


class CachedTokens(TypedDict):
    """How many of a prompt's tokens were found computed."""

    cached_tokens: int


class Usage(TypedDict):
    """Token counts; a prompt counts once, however many choices it has."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class Logprobs(TypedDict):
    """Log-probabilities of a completion's tokens.

    Args:
        tokens: each token's text.
        token_logprobs: of the tokens that were chosen.
        top_logprobs: text -> log-probability of the likeliest alternatives, for each token; null,
            as its own, for the first token of an echoed prompt.
        text_offset: where each token's text begins, in characters.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class PromptLogprob(TypedDict):
    """The log-probability of a prompt's token, or of an alternative to it.

    Args:
        rank: 1 for the likeliest of the vocabulary.
    """

    logprob: float
    rank: int
    decoded_token: str


class Choice(TypedDict):
    """One answer to a prompt, or the next piece of one.

    Args:
        finish_reason: null in the pieces of a stream before the last one.
        token_ids: what was generated; only with `return_token_ids`.
        prompt_logprobs: only where they were asked for: for each token of the prompt, token id ->
            log-probability; null for the first one.
    """

    index: int
    text: str
    finish_reason: FinishReason | None
    logprobs: Logprobs | None
    token_ids: NotRequired[list[int]]
    prompt_logprobs: NotRequired[list[dict[str, PromptLogprob] | None]]


class Completion(TypedDict):
    """The answer to a prompt, or to many: prompt by prompt, `n` choices each."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    overtone: AnsweredBy


class CompletionChunk(TypedDict):
    """One event of a streamed completion.

    Args:
        usage: only with `stream_options.include_usage`: null before the last event, which has no
            choices.
    """

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: NotRequired[Usage | None]
    overtone: AnsweredBy


class TokenLogprob(TypedDict):
    """The log-probability of a token; `bytes` is null for a part of a character."""

    token: str
    logprob: float | None
    bytes: list[int] | None


class ChatTokenLogprob(TokenLogprob):
    """The log-probability of a chosen token, and the likeliest alternatives."""

    top_logprobs: list[TokenLogprob]


class ChatLogprobs(TypedDict):
    """Log-probabilities of a message's tokens."""

    content: list[ChatTokenLogprob]
    refusal: None


class FunctionCall(TypedDict):
    """A function, and the arguments that it is to be called with: a JSON object as text."""

    name: str
    arguments: str


class ToolCall(TypedDict):
    """A call of a function; its result refers to the id."""

    id: str
    type: Literal["function"]
    function: FunctionCall


class AssistantMessage(TypedDict):
    """What the model says.

    Args:
        content: null if it only calls functions.
        tool_calls: only if it calls some.
    """

    role: Literal["assistant"]
    content: str | None
    tool_calls: NotRequired[list[ToolCall]]


class ChatChoice(TypedDict):
    """One answer to a conversation.

    Args:
        token_ids: only with `return_token_ids`.
        prompt_logprobs: as those of a completion.
    """

    index: int
    message: AssistantMessage
    finish_reason: ChatFinishReason
    logprobs: ChatLogprobs | None
    token_ids: NotRequired[list[int]]
    prompt_logprobs: NotRequired[list[dict[str, PromptLogprob] | None]]


class ChatCompletion(TypedDict):
    """The answer to a conversation."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    overtone: AnsweredBy


class FunctionDelta(TypedDict):
    """The next piece of a call's function; the first one has the name."""

    name: NotRequired[str]
    arguments: str


class ToolCallDelta(TypedDict):
    """The next piece of a call; the first one has the id and the type."""

    index: int
    id: NotRequired[str]
    type: NotRequired[Literal["function"]]
    function: FunctionDelta


class MessageDelta(TypedDict):
    """The next piece of a message, of its content or of a call; the first one has the role."""

    role: NotRequired[Literal["assistant"]]
    content: NotRequired[str | None]
    tool_calls: NotRequired[list[ToolCallDelta]]


class ChatChunkChoice(TypedDict):
    """The next piece of one answer.

    Args:
        finish_reason: null before the last piece.
        token_ids: only with `return_token_ids`.
    """

    index: int
    delta: MessageDelta
    finish_reason: ChatFinishReason | None
    logprobs: ChatLogprobs | None
    token_ids: NotRequired[list[int]]


class ChatCompletionChunk(TypedDict):
    """One event of a streamed chat.

    Args:
        usage: only with `stream_options.include_usage`: null before the last event, which has no
            choices.
    """

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: NotRequired[Usage | None]
    overtone: AnsweredBy


class InputUsage(TypedDict):
    """Token counts of inputs; images count none."""

    prompt_tokens: int
    total_tokens: int


class LabelScore(TypedDict):
    """A label and its score; a regression's score is the value itself."""

    label: str
    score: float


class ClassifiedInput(LabelScore):
    """The best label of one input, and the scores of all labels in their order."""

    index: int
    scores: list[LabelScore]


class Classification(TypedDict):
    """The labels of all inputs, in their order."""

    id: str
    object: Literal["list"]
    model: str
    data: list[ClassifiedInput]
    usage: InputUsage
    overtone: AnsweredBy


class Embedding(TypedDict):
    """The vector of one input; with `encoding_format: base64` as little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Embeddings(TypedDict):
    """The vectors of all inputs, in their order."""

    object: Literal["list"]
    model: str
    data: list[Embedding]
    usage: InputUsage
    overtone: AnsweredBy


class RerankedText(TypedDict):
    """A document as it was given."""

    text: str


class RerankResult(TypedDict):
    """A document's place in the request, and its score; the better, the greater.

    Args:
        document: only with `return_documents`.
    """

    index: int
    relevance_score: float
    document: NotRequired[RerankedText]


class Reranking(TypedDict):
    """The documents, the best first."""

    id: str
    model: str
    results: list[RerankResult]
    usage: InputUsage
    overtone: AnsweredBy


class Score(TypedDict):
    """The score of one pair."""

    index: int
    object: Literal["score"]
    score: float


class Scores(TypedDict):
    """The scores of all pairs, in their order."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Score]
    usage: InputUsage
    overtone: AnsweredBy


class Evaluation(TypedDict):
    """Figures of a served model on a file of examples.

    Args:
        metrics: such as `eval_loss`, `perplexity`, `accuracy`.
    """

    object: Literal["evaluation"]
    model: str
    num_examples: int
    metrics: dict[str, float]
    overtone: AnsweredBy


class EvaluationProgress(TypedDict):
    """How many examples of an evaluation are answered."""

    object: Literal["evaluation.progress"]
    done: int
    total: int
