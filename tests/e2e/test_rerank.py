"""Cross-encoders behind /v1/rerank and /v1/score: what PEFT and transformers answer themselves."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch

import tiny_encoders as te
from live import Live, error_of, serving, settings_of

TOLERANCE = 1e-5
QUERY = "What is fast?"
DOCUMENTS = ["A hare runs.", "A snail", "é" * 20, "Light travels at 299,792,458 m/s.", "x"]


@dataclass(frozen=True)
class Case:
    """A served cross-encoder, its tokenizer, the base itself, and adapters of several methods."""

    live: Live
    tokenizer: Any
    model: Any
    made: list[te.Made]

    def inputs(self, first: str, second: str) -> dict[str, torch.Tensor]:
        return dict(self.tokenizer(first, second, return_tensors="pt"))

    def wanted(self, made: te.Made | None, query: str, documents: list[str]) -> torch.Tensor:
        """Return CrossEncoder's scores: the sigmoid of each pair's logit, each pair alone."""
        with torch.inference_mode():
            rows = [
                (made.logits if made else lambda **kw: self.model(**kw).logits)(
                    **self.inputs(query, document)
                )[0, 0]
                for document in documents
            ]
        return torch.sigmoid(torch.stack(rows).double())


@pytest.fixture(scope="module")
def start(
    tmp_path_factory: pytest.TempPathFactory, few_threads: None
) -> Iterator[Callable[..., Live]]:
    with ExitStack() as stack:

        def run(folder: Path, **changes: Any) -> Live:
            data = tmp_path_factory.mktemp("data")
            return stack.enter_context(serving(settings_of(folder, data, **changes)))

        yield run


@pytest.fixture(scope="module", params=["bert", "roberta"])
def case(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    start: Callable[..., Live],
) -> Case:
    """BERT's pairs have types, RoBERTa's none."""
    shape, tmp = request.param, tmp_path_factory.mktemp(request.param)
    folder = te.save_cross_encoder(tmp / "base", shape)
    configs = te.configs(shape, "SEQ_CLS", None)
    made = [
        te.make(te.reference(folder, shape), config, tmp / f"{shape}-{number}", number)
        for number, config in enumerate(configs)
    ]
    live = start(folder)
    for one in made:
        answer = live.upload(f"org/{one.name}", one.files)
        assert answer.status_code == 201, answer.text
    return Case(live, te.tokenizer(pairs=shape), te.reference(folder, shape), made)


def rerank(live: Live, model: str, **params: Any) -> httpx2.Response:
    body = {"model": model, "query": QUERY, "documents": DOCUMENTS, **params}
    return live.http.post("/v1/rerank", json=body)


def score(live: Live, model: str, one: Any, other: Any, **params: Any) -> httpx2.Response:
    body = {"model": model, "text_1": one, "text_2": other, **params}
    return live.http.post("/v1/score", json=body)


def scores(answer: httpx2.Response) -> torch.Tensor:
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert [one["index"] for one in data] == list(range(len(data)))
    return torch.tensor([one["score"] for one in data], dtype=torch.float64)


@pytest.mark.parametrize("number", [None, 0, 1, 2, 3])
def test_scores_are_those_of_each_pair_alone(case: Case, number: int | None) -> None:
    made = None if number is None else case.made[number]
    name = f"org/{made.name}" if made else "tiny"
    got = scores(score(case.live, name, QUERY, DOCUMENTS))
    want = case.wanted(made, QUERY, DOCUMENTS)
    assert torch.allclose(got, want, atol=TOLERANCE)
    assert len({round(float(value), 4) for value in want}) == len(DOCUMENTS)


def test_the_order_of_a_pair_and_its_types_count(case: Case) -> None:
    there = scores(score(case.live, "tiny", "a hare", "a snail"))
    back = scores(score(case.live, "tiny", "a snail", "a hare"))
    assert not torch.allclose(there, back, atol=1e-3)
    assert torch.allclose(back, case.wanted(None, "a snail", ["a hare"]), atol=TOLERANCE)


def test_a_reranking_has_the_best_document_first(case: Case) -> None:
    made = case.made[1]
    answer = rerank(case.live, f"org/{made.name}")
    body = answer.json()
    want = case.wanted(made, QUERY, DOCUMENTS)
    order = want.argsort(descending=True).tolist()
    assert [one["index"] for one in body["results"]] == order
    got = torch.tensor([one["relevance_score"] for one in body["results"]], dtype=torch.float64)
    assert torch.allclose(got, want[order], atol=TOLERANCE)
    assert [one["document"]["text"] for one in body["results"]] == [DOCUMENTS[i] for i in order]
    tokens = sum(len(case.inputs(QUERY, one)["input_ids"][0]) for one in DOCUMENTS)
    assert body["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert answer.headers["X-Overtone-Adapter"].startswith(f"org/{made.name}@1 sha256:")


@pytest.mark.parametrize("path", ["/rerank", "/v2/rerank"])
def test_other_servers_paths_are_taken_too(case: Case, path: str) -> None:
    body = {"model": "tiny", "query": QUERY, "documents": DOCUMENTS}
    answer = case.live.http.post(path, json=body)
    assert answer.json()["results"] == rerank(case.live, "tiny").json()["results"]


def test_results_are_cut_and_without_documents_on_request(case: Case) -> None:
    whole = rerank(case.live, "tiny").json()["results"]
    for top_n, count in ((1, 1), (3, 3), (5, 5), (99, 5), (0, 5), (None, 5)):
        found = rerank(case.live, "tiny", top_n=top_n, return_documents=False).json()["results"]
        assert found == [{k: one[k] for k in ("index", "relevance_score")} for one in whole[:count]]
    objects = [{"text": text} for text in DOCUMENTS]
    assert rerank(case.live, "tiny", documents=objects).json()["results"] == whole


def test_equal_scores_keep_the_order_of_the_documents(case: Case) -> None:
    found = rerank(case.live, "tiny", documents=["same"] * 7).json()["results"]
    assert [one["index"] for one in found] == list(range(7))


def test_without_its_activation_a_score_is_the_logit(case: Case) -> None:
    logits = scores(score(case.live, "tiny", QUERY, DOCUMENTS, use_activation=False))
    assert torch.allclose(logits.sigmoid(), case.wanted(None, QUERY, DOCUMENTS), atol=TOLERANCE)
    assert (logits < 0).any() or (logits > 1).any()


def test_one_text_is_paired_with_all_and_several_each_with_their_own(case: Case) -> None:
    one = scores(score(case.live, "tiny", QUERY, DOCUMENTS[0]))
    assert torch.equal(one, scores(score(case.live, "tiny", [QUERY], [DOCUMENTS[0]])))
    several = scores(score(case.live, "tiny", DOCUMENTS, DOCUMENTS[::-1]))
    want = [case.wanted(None, a, [b])[0] for a, b in zip(DOCUMENTS, DOCUMENTS[::-1], strict=True)]
    assert torch.allclose(several, torch.stack(want), atol=TOLERANCE)
    answer = score(case.live, "tiny", ["a", "b"], ["c", "d", "e"])
    assert (answer.status_code, error_of(answer)["param"]) == (400, "text_1")
    assert "text_1 has 2 texts and text_2 3" in error_of(answer)["message"]


def test_all_adapters_at_once_answer_as_each_does_alone(case: Case) -> None:
    names = ["tiny", *(f"org/{made.name}" for made in case.made)] * 3

    async def ask_all() -> list[httpx2.Response]:
        async with httpx2.AsyncClient(base_url=case.live.url, trust_env=False) as http:
            bodies = [{"model": name, "text_1": QUERY, "text_2": DOCUMENTS} for name in names]
            classify = {"model": "tiny", "input": DOCUMENTS}
            asked = [http.post("/v1/score", json=body) for body in bodies]
            asked += [http.post("/v1/classify", json=classify) for _ in range(4)]
            return await asyncio.gather(*asked)

    together = asyncio.run(ask_all())
    for name, answer in zip(names, together, strict=False):
        alone = score(case.live, name, QUERY, DOCUMENTS)
        assert answer.json()["data"] == alone.json()["data"]  # to the last bit


def test_a_document_that_is_too_long_is_refused_by_name_or_cut_on_request(case: Case) -> None:
    long = "y" * 200
    answer = rerank(case.live, "tiny", documents=["a", long])
    told = error_of(answer)
    assert (answer.status_code, told["code"]) == (400, "context_length_exceeded")
    assert told["param"] == "documents[1]"
    assert "200 tokens" in told["message"]
    told = error_of(rerank(case.live, "tiny", query=long))
    assert (told["code"], told["param"]) == ("context_length_exceeded", "query")
    assert error_of(score(case.live, "tiny", "a", ["b", long]))["param"] == "text_2[1]"
    got = scores(score(case.live, "tiny", QUERY, ["a", long], truncate=True))
    cut = {"truncation": "longest_first", "max_length": te.MAX_LENGTH}
    inputs = case.tokenizer(QUERY, long, return_tensors="pt", **cut)
    with torch.inference_mode():
        want = torch.sigmoid(case.model(**inputs).logits[0, 0].double())
    assert torch.allclose(got[1], want, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("params", "param", "words"),
    [
        ({"documents": []}, "documents", "at least 1 item"),
        ({"documents": ["a"] * 2049}, "documents", "at most 2048 items, not 2049"),
        ({"documents": ["a", ""]}, "documents[1]", "at least 1 character"),
        ({"documents": ["a", {"text": ""}]}, "documents[1].text", "at least 1 character"),
        ({"documents": [{"image": "x"}]}, "documents[0].text", "Field required"),
        ({"documents": [[1, 2]]}, "documents[0]", "valid string"),
        ({"documents": "a"}, "documents", "valid list"),
        ({"query": ""}, "query", "at least 1 character"),
        ({"query": ["a"]}, "query", "valid string"),
        ({"query": None}, "query", "Field required"),
        ({"top_n": -1}, "top_n", "greater than or equal to 0"),
        ({"max_chunks_per_doc": 3}, "max_chunks_per_doc", "not supported"),
    ],
)
def test_a_bad_field_is_named(case: Case, params: Any, param: str, words: str) -> None:
    answer = rerank(case.live, "tiny", **params)
    assert answer.status_code == 400
    assert error_of(answer)["param"] == param
    assert words in error_of(answer)["message"]


def test_an_unknown_adapter_is_not_found(case: Case) -> None:
    assert rerank(case.live, "org/nobody").status_code == 404
    assert score(case.live, "org/nobody", "a", "b").status_code == 404


def test_a_classifier_of_several_labels_gives_no_score(
    tmp_path: Path, start: Callable[..., Live]
) -> None:
    """An adapter with a head of one label does, on the same base."""
    live = start(te.save(tmp_path / "base", "bert"))
    for answer in (rerank(live, "tiny"), score(live, "tiny", "a", "b")):
        told = error_of(answer)
        assert (answer.status_code, told["code"], told["param"]) == (
            400,
            "invalid_request",
            "model",
        )
        assert "3 labels" in told["message"]
        assert "/v1/classify" in told["message"]
    model = te.model("bert", num_labels=1)
    made = te.make(model, te.configs("bert", "SEQ_CLS", None)[0], tmp_path / "one", 5)
    assert live.upload("one", made.files).status_code == 201
    got = scores(score(live, "one", "a hare", DOCUMENTS))
    with torch.inference_mode():
        want = [
            made.logits(**te.tokenizer()("a hare", text, return_tensors="pt"))[0, 0]
            for text in DOCUMENTS
        ]
    assert torch.allclose(got, torch.sigmoid(torch.stack(want).double()), atol=TOLERANCE)


def test_a_config_with_an_activation_of_its_own_is_followed_or_refused(
    tmp_path: Path, start: Callable[..., Live]
) -> None:
    own = {"activation_fn": "torch.nn.modules.linear.Identity"}
    live = start(te.save_cross_encoder(tmp_path / "a", "bert", sentence_transformers=own))
    plain = scores(score(live, "tiny", QUERY, DOCUMENTS))
    assert torch.equal(plain, scores(score(live, "tiny", QUERY, DOCUMENTS, use_activation=False)))
    own = {"activation_fn": "torch.nn.modules.activation.Tanh"}
    live = start(te.save_cross_encoder(tmp_path / "b", "bert", sentence_transformers=own))
    answer = score(live, "tiny", QUERY, DOCUMENTS)
    assert (answer.status_code, error_of(answer)["param"]) == (400, "model")
    assert "Tanh" in error_of(answer)["message"]
    classified = live.http.post("/v1/classify", json={"model": "tiny", "input": "a"})
    assert classified.status_code == 200


@pytest.mark.parametrize("kind", ["llama", "embedder"])
def test_other_bases_refuse_in_words(
    tmp_path: Path, start: Callable[..., Live], live: Live, kind: str
) -> None:
    server = live if kind == "llama" else start(te.save(tmp_path, "bert", is_embedder=True))
    for answer in (rerank(server, "tiny"), score(server, "tiny", "a", "b")):
        told = error_of(answer)
        assert (answer.status_code, told["param"]) == (400, "model")
        assert ("/v1/completions" if kind == "llama" else "/v1/embeddings") in told["message"]
