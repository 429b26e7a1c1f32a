"""How the choices of a request are sampled, as its body and the base say."""

from collections.abc import Mapping
from dataclasses import replace
from random import SystemRandom

from server.api.chat_schemas import ChatRequest
from server.api.completion_schemas import GenerationRequest
from server.api.generation import GenerationCall
from server.api.prompt_scores import wanted_scores
from server.api.sampling_schemas import MAX_CHOICES
from server.base.sampling_defaults import SamplingDefaults
from server.errors import InvalidRequest
from server.scheduling.random_numbers import seed_of_choice
from server.scheduling.sequence import Sampling
from server.service import Service


def samplings(call: GenerationCall, service: Service) -> list[Sampling]:
    """Return how each choice is sampled: prompt by prompt, `n` choices each.

    Raises:
        PromptTooLong: a prompt and its tokens do not fit the base.
        InvalidRequest: too many choices, a token that does not exist, or too many min_tokens.
    """
    request, prompts = call.body, call.prompts
    if len(prompts) > MAX_CHOICES:
        raise InvalidRequest(f"{len(prompts)} choices asked for; at most {MAX_CHOICES}", "n")
    shared = _shared(call, service)
    choices = zip(prompts, _seeds(request, len(prompts)), _scored(call), strict=True)
    return [
        replace(
            shared,
            max_tokens=_max_tokens(service, call, len(prompt)),
            seed=seed,
            scored=scored,
        )
        for prompt, seed, scored in choices
    ]


def _shared(call: GenerationCall, service: Service) -> Sampling:
    """Return what all choices have in common; what the request leaves out is the base's.

    Raises:
        InvalidRequest: a token is named that does not exist, or min_tokens leaves none to choose.
    """
    request, defaults = call.body, service.sampling_defaults
    _check_tokens(service, request)
    given = {name: getattr(request, name) for name in SamplingDefaults.model_fields}
    chosen = {name: value for name, value in given.items() if value is not None}
    of_request = defaults.model_copy(update=chosen)
    return Sampling(
        max_tokens=0,
        temperature=of_request.temperature,
        top_k=max(0, of_request.top_k),
        top_p=of_request.top_p,
        min_p=of_request.min_p,
        typical_p=of_request.typical_p,
        repetition_penalty=of_request.repetition_penalty,
        frequency_penalty=request.frequency_penalty,
        presence_penalty=request.presence_penalty,
        stop_ids=_stop_ids(request, service),
        min_tokens=request.min_tokens,
        num_logprobs=call.num_logprobs,
        num_scored_logprobs=call.num_prompt_logprobs or 0,
        logit_bias=request.logit_bias or {},
    )


def _seeds(request: GenerationRequest, num_choices: int) -> list[int]:
    """Return each choice's seed.

    A request's seed gives every prompt the choices that it has when it is sent alone. Without one,
    every prompt has a random seed of its own.
    """
    n = request.n
    random = SystemRandom()
    firsts = [random.getrandbits(63) for _ in range(num_choices // n)]
    of_prompts = firsts if request.seed is None else [request.seed] * len(firsts)
    return [seed_of_choice(seed, choice) for seed in of_prompts for choice in range(n)]


def _scored(call: GenerationCall) -> list[Mapping[int, int]]:
    """Return which tokens of its prompt each choice scores; those of one prompt share them."""
    if call.num_prompt_logprobs is None:
        return [{}] * len(call.prompts)
    n = call.body.n
    return [wanted for prompt in call.prompts[::n] for wanted in [wanted_scores(prompt)] * n]


def _stop_ids(request: GenerationRequest, service: Service) -> frozenset[int]:
    """Return the tokens that end an answer; a chat's also at its template's end of a turn.

    Raises:
        InvalidRequest: min_tokens leaves no token to choose.
    """
    stops = frozenset(request.stop_token_ids)
    if not request.ignore_eos:
        stops |= service.base.eos_ids
        stops |= service.text.chat_ends if isinstance(request, ChatRequest) else frozenset()
    if request.min_tokens and len(stops) >= service.base.vocabulary:
        message = f"min_tokens = {request.min_tokens}: every token of the base ends an answer"
        raise InvalidRequest(message, "min_tokens")
    return stops


def _check_tokens(service: Service, request: GenerationRequest) -> None:
    """Raise InvalidRequest if a token is named that does not exist."""
    named = {"logit_bias": request.logit_bias or (), "stop_token_ids": request.stop_token_ids}
    for name, tokens in named.items():
        for token in tokens:
            if token >= service.base.vocabulary:
                raise InvalidRequest(f"{name} names token {token}, which does not exist", name)


def _max_tokens(service: Service, call: GenerationCall, prompt: int) -> int:
    """Return how many tokens may follow a prompt of so many.

    Raises:
        InvalidRequest: fewer than min_tokens.
    """
    room = _room(call, service, prompt)
    if call.body.min_tokens > room:
        message = f"min_tokens = {call.body.min_tokens}, but at most {room} tokens are generated"
        raise InvalidRequest(message, "min_tokens")
    return room


def _room(call: GenerationCall, service: Service, num_prompt: int) -> int:
    """Return how many tokens may be generated: what was asked for, or what is usual and fits."""
    request = call.body
    usual = request.usual_max_tokens
    return service.text.lengths.room(num_prompt, call.max_tokens, usual, request.prompt_field)
