"""Given tokens are scored as transformers scores them, in any company and however they are cut."""

import pytest
import torch
from torch import Tensor

import tiny
from server.scheduling.sequence import Sampling, TokenSequence
from server_parts import FOURIERFT, Served, given, greedy, prompt_of

LENGTHS = (2, 5, 33, 70, 130)
#: Logits of two ways to compute the same may differ so much.
TIE = 1e-3


def scored(prompt: tuple[int, ...], lease: object = None) -> TokenSequence:
    wanted = {place: prompt[place + 1] for place in range(len(prompt) - 1) if place % 3 != 1}
    return TokenSequence(
        prompt, Sampling(0, temperature=0, scored=wanted, num_scored_logprobs=3), lease
    )  # type: ignore[arg-type]


def reference(model: torch.nn.Module, sequence: TokenSequence) -> tuple[dict[int, float], Tensor]:
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([sequence.prompt])).logits[0]
    logprobs = torch.log_softmax(logits.double(), 1)
    wanted = sequence.sampling.scored
    return {place: float(logprobs[place, token]) for place, token in wanted.items()}, logits


@pytest.mark.parametrize("max_rows", [16, 512])
@pytest.mark.parametrize(
    ("shape", "on_device"),
    [("llama", False), ("llama", True), *((shape, False) for shape in tiny.OWN_SHAPES)],
)
def test_scores_are_transformers_in_pieces_and_in_a_crowd(
    shape: str, on_device: bool, max_rows: int
) -> None:
    served = Served(tiny.model(shape), on_device=on_device)
    adapter = given(served.spec, FOURIERFT, 1, bases=served.bases)
    leases = [None, served.entry(adapter, "factored"), served.entry(adapter, "merged")]
    sequences = [scored(prompt_of(n, n), leases[i % 3]) for i, n in enumerate(LENGTHS)]
    neighbours = [
        TokenSequence(prompt_of(20, 3), greedy(6)),
        TokenSequence(prompt_of(40, 4), greedy(2)),
    ]
    served.run([*sequences, *neighbours], max_rows)
    models = [served.merged_copy(None), *[served.merged_copy(adapter)] * 2]
    for number, sequence in enumerate(sequences):
        true, logits = reference(models[number % 3], sequence)
        got = {place: score.logprob for place, score in sequence.scores.items()}
        assert got == pytest.approx(true, abs=TIE)
        top = logits.topk(2, dim=1)
        for place, score in sequence.scores.items():
            if top.values[place, 0] - top.values[place, 1] > TIE:  # else either may be likelier
                likeliest = int(top.indices[place, 0]) == sequence.sampling.scored[place]
                assert score.is_likeliest == likeliest
            below = float(logits[place, sequence.sampling.scored[place]]) - TIE
            above = below + 2 * TIE
            assert int((logits[place] > above).sum()) < score.rank
            assert score.rank <= int((logits[place] >= below).sum())
            expected = torch.log_softmax(logits[place].double(), 0).topk(3).values.tolist()
            assert [value for _, value in score.alternatives] == pytest.approx(expected, abs=TIE)
            for token, value in score.alternatives:
                own = float(torch.log_softmax(logits[place].double(), 0)[token])
                assert value == pytest.approx(own, abs=TIE)


def test_neighbours_of_scored_rows_keep_their_bits() -> None:
    served = Served(tiny.model("llama"))
    alone = TokenSequence(prompt_of(40, 1), greedy(4))
    beside = TokenSequence(prompt_of(40, 1), greedy(4))
    expected = served.run([alone])[alone]
    got = served.run([scored(prompt_of(70, 2)), beside, scored(prompt_of(9, 3))], 32)[beside]
    assert torch.equal(got, expected)


def test_a_prompt_whose_beginning_is_kept_is_scored_whole() -> None:
    served = Served(tiny.model("llama"))
    prompt = prompt_of(100, 7)
    first, second = scored(prompt), scored(prompt)
    served.run([TokenSequence(prompt, greedy(2)), first])
    served.run([second, TokenSequence(prompt, greedy(2))])
    assert set(first.scores) == set(second.scores) == set(first.sampling.scored)
    assert first.scores == second.scores


def test_no_token_to_generate_ends_a_sequence_with_its_prompt() -> None:
    served = Served(tiny.model("llama"))
    sequence = TokenSequence(prompt_of(70, 2), Sampling(0, temperature=0))
    served.run([sequence])
    assert (sequence.finish_reason, sequence.num_computed) == ("length", 70)


def test_rows_asking_for_other_numbers_of_alternatives_get_theirs() -> None:
    served = Served(tiny.model("llama"))
    prompt = prompt_of(40, 5)
    wanted = {place: prompt[place + 1] for place in range(39)}
    sequences = [
        TokenSequence(prompt, Sampling(0, temperature=0, scored=wanted, num_scored_logprobs=count))
        for count in (0, 5, 2)
    ]
    served.run(sequences, 512)
    for place in wanted:
        none, five, two = (sequence.scores[place] for sequence in sequences)
        assert none.alternatives == ()
        assert five.alternatives[:2] == two.alternatives
        assert len(five.alternatives) == 5
        assert none.logprob == five.logprob == two.logprob
