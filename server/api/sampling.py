"""How the choices of a request are sampled, as its body and the base say."""

from random import SystemRandom

from server.api.chat_schemas import ChatRequest
from server.api.completion_schemas import GenerationRequest
from server.api.generation import GenerationCall
from server.api.prompt_scores import wanted_scores
from server.api.sampling_schemas import MAX_CHOICES
from server.errors import InvalidRequest, PromptTooLong
from server.scheduling.random_numbers import seed_of_choice
from server.scheduling.sequence import Sampling
from server.service import Service


def samplings(call: GenerationCall, service: Service) -> list[Sampling]:
    """Return how each choice is sampled: prompt by prompt, `n` choices each.

    Raises:
        PromptTooLong: a prompt and its tokens do not fit the base.
        InvalidRequest: too many choices, or a biased token that does not exist.
    """
    request, prompts = call.body, call.prompts
    if len(prompts) > MAX_CHOICES:
        raise InvalidRequest(f"{len(prompts)} choices asked for; at most {MAX_CHOICES}", "n")
    for token in request.logit_bias or ():
        if token >= service.base.vocabulary:
            message = f"logit_bias names token {token}, which does not exist"
            raise InvalidRequest(message, "logit_bias")
    stops = _stop_ids(request, service)
    seeds = _seeds(request, len(prompts))
    return [
        Sampling(
            max_tokens=_room(service, request, len(prompt), call.max_tokens),
            temperature=1.0 if request.temperature is None else request.temperature,
            top_p=1.0 if request.top_p is None else request.top_p,
            seed=seed,
            stop_ids=stops,
            num_logprobs=call.num_logprobs,
            scored={} if call.num_prompt_logprobs is None else wanted_scores(prompt),
            num_scored_logprobs=call.num_prompt_logprobs or 0,
            logit_bias=request.logit_bias or {},
        )
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]


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


def _stop_ids(request: GenerationRequest, service: Service) -> frozenset[int]:
    """Return the tokens that end an answer; a chat's also at its template's end of a turn."""
    if request.ignore_eos:
        return frozenset()
    ends = service.base.eos_ids
    return ends | service.text.chat_ends if isinstance(request, ChatRequest) else ends


def _room(service: Service, request: GenerationRequest, prompt: int, max_tokens: int | None) -> int:
    """Return how many tokens may be generated: what was asked for, or all that fit."""
    limit = service.max_length
    wanted = limit - prompt if max_tokens is None else max_tokens
    if wanted < 1 and max_tokens != 0 or prompt + wanted > limit:
        asked = "" if max_tokens is None else f" and max_tokens {max_tokens}"
        raise PromptTooLong(
            f"the prompt has {prompt} tokens{asked}; together at most {limit} fit",
            "messages" if isinstance(request, ChatRequest) else "prompt",
        )
    return wanted
