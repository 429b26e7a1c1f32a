"""A call of generations as its trace shows it: by default without any text."""

from collections.abc import Sequence

from server.adapters.residency import Entry
from server.api.chat_schemas import ChatRequest
from server.api.generation import GenerationCall, Run
from server.generation.detokenizer import Text
from server.generation.runtime import Generation
from server.telemetry.traces import MAX_SEQUENCES, CallTrace, SequenceTimes

#: Of one prompt's text in a trace; collectors refuse long attributes.
_MAX_PROMPT_TOKENS = 2048


def call_trace(call: GenerationCall, run: Run, text: Text | None) -> CallTrace:
    """Return the trace of a call whose run is over.

    Args:
        call: as it was accepted.
        run: of the call.
        text: reads prompts that are to be shown; None shows none.
    """
    record, body, sequences = call.answerer.record, call.body, run.sequences
    prompts = call.prompts[:MAX_SEQUENCES]
    attributes = {
        "gen_ai.response.model": record.reference if record else call.answerer.base_name,
        "gen_ai.request.max_tokens": call.max_tokens,
        "gen_ai.request.choice.count": len(sequences),
        "gen_ai.request.temperature": body.temperature,
        "gen_ai.request.top_p": body.top_p,
        "gen_ai.request.seed": body.seed,
        "gen_ai.usage.input_tokens": sum(map(len, call.prompts[:: call.body.n])),
        "gen_ai.usage.output_tokens": sum(each.num_generated for each in sequences),
        "gen_ai.response.finish_reasons": run.finish_reasons or None,
        "overtone.adapter": call.answerer.adapter or None,
        "overtone.digest": call.answerer.digest,
        "overtone.mode": run.mode or "base",
        "overtone.tenant": call.tenant or None,
        "overtone.cached_tokens": run.num_cached(call.body.n),
        "overtone.prompts": None if text is None else _texts(prompts, text),
    }
    operation = "chat" if isinstance(body, ChatRequest) else "text_completion"
    times = list(map(_times_of, run.generations))
    return CallTrace(operation, call.answerer.model, attributes, times)


def _times_of(generation: Generation) -> SequenceTimes:
    sequence = generation.sequence
    lease, first = sequence.lease, generation.first_event_at
    return SequenceTimes(
        arrived=sequence.arrived,
        loaded=lease.ready_at if isinstance(lease, Entry) else None,
        admitted=sequence.admitted,
        first=first,
        last=None if first is None else generation.last_event_at,
    )


def _texts(prompts: Sequence[Sequence[int]], text: Text) -> list[str]:
    return [text.decoded(list(prompt[:_MAX_PROMPT_TOKENS])) for prompt in prompts]
