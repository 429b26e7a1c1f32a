"""Classifiers behind /v1/classify: what PEFT has saved answers over REST as PEFT itself does."""

import asyncio
import base64
import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load, save
from transformers import RobertaForMaskedLM

import tiny_encoders as te
from live import CONFIG, FILE, Live, serving, settings_of
from server.api import encoding_answers, json_answer

TOLERANCE = 1e-5
TEXTS = ("fine", "Not what I had hoped for, but it works.", "ééé")
NUM_ADAPTERS = 16


@dataclass(frozen=True)
class Case:
    """A served classifier, the folder of its base, and adapters of several methods."""

    live: Live
    folder: Path
    made: list[te.Made]


@pytest.fixture(scope="module")
def start(
    tmp_path_factory: pytest.TempPathFactory, few_threads: None
) -> Iterator[Callable[..., Live]]:
    with ExitStack() as stack:

        def run(folder: Path, **changes: Any) -> Live:
            data = tmp_path_factory.mktemp("data")
            return stack.enter_context(serving(settings_of(folder, data, **changes)))

        yield run


@pytest.fixture(scope="module", params=te.CLASSIFIERS)
def case(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    start: Callable[..., Live],
) -> Case:
    shape, tmp = request.param, tmp_path_factory.mktemp(request.param)
    folder = te.save(tmp / "base", shape)
    configs = te.configs(shape, "SEQ_CLS", None) * 4
    made = [
        te.make(te.reference(folder, shape), config, tmp / f"{shape}-{number}", number)
        for number, config in enumerate(configs)
    ]
    live = start(folder)
    for one in made:
        answer = live.upload(one.name, one.files, metadata=te.metadata(["x", "y", one.name]))
        assert answer.status_code == 201, answer.text
    return Case(live, folder, made)


def classify(live: Live, model: str, given: Any, **params: Any) -> httpx2.Response:
    return live.http.post("/v1/classify", json={"model": model, "input": given, **params})


def scores(answer: httpx2.Response) -> list[torch.Tensor]:
    assert answer.status_code == 200, answer.text
    return [
        torch.tensor([s["score"] for s in row["scores"]], dtype=torch.float64)
        for row in answer.json()["data"]
    ]


def shares(logits: torch.Tensor) -> torch.Tensor:
    return logits.double().softmax(-1)


def test_the_bases_own_scores_are_transformers(case: Case) -> None:
    answer = classify(case.live, "tiny", list(TEXTS))
    with torch.inference_mode():
        model = te.reference(case.folder, case.live.service.base.model.config.model_type)
        for got, text in zip(scores(answer), TEXTS, strict=True):
            want = shares(model(**te.inputs_of(text)).logits[0])
            assert torch.allclose(got, want, atol=TOLERANCE)
    first = answer.json()["data"][0]
    best = max(first["scores"], key=lambda s: s["score"])
    assert [s["label"] for s in first["scores"]] == list(te.LABELS)
    assert (first["label"], first["score"]) == (best["label"], best["score"])
    assert answer.json()["overtone"]["mode"] == "base"


def test_many_labels_are_made_beside_the_event_loop(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two thousand images of a thousand labels each would stop it for seconds."""
    whole, on_loop = encoding_answers.answer_of, list[bool]()

    def answer_of(*args: Any) -> dict[str, Any]:
        on_loop.append(asyncio._get_running_loop() is not None)
        return whole(*args)

    few = classify(case.live, "tiny", list(TEXTS)).json()
    monkeypatch.setattr(json_answer, "_FEW", 3 * len(TEXTS) * len(te.LABELS) - 1)
    monkeypatch.setattr(encoding_answers, "answer_of", answer_of)
    many = classify(case.live, "tiny", list(TEXTS)).json()
    assert on_loop == [False] * len(TEXTS)
    assert many["data"] == few["data"]


def test_a_batch_of_texts_or_images_gives_each_its_own_bits(case: Case, images: Case) -> None:
    for one in (case, images):
        assert one.live.service.rows.holds, one.live.service.rows.moved
        assert one.live.metric("overtone_batch_invariant") == 1


def test_what_is_not_answered_in_time_is_504(case: Case) -> None:
    answer = classify(case.live, "tiny", list(TEXTS), timeout_s=1e-6)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert classify(case.live, "tiny", list(TEXTS), timeout_s=60).status_code == 200
    assert classify(case.live, "tiny", list(TEXTS), timeout_s=0).status_code == 400


@pytest.mark.parametrize("number", range(4))
def test_an_adapters_scores_are_pefts(case: Case, number: int) -> None:
    made = case.made[number]
    answer = classify(case.live, made.name, list(TEXTS))
    for got, text in zip(scores(answer), TEXTS, strict=True):
        assert torch.allclose(got, shares(made.logits(**te.inputs_of(text))[0]), atol=TOLERANCE)
    record = case.live.http.get(f"/v1/adapters/{made.name}").json()
    assert answer.json()["overtone"]["digest"] == record["digest"]
    assert answer.headers["X-Overtone-Adapter"] == f"{made.name}@1 {record['digest']}"
    labels = [score["label"] for score in answer.json()["data"][0]["scores"]]
    assert labels == ["x", "y", made.name]


def test_16_adapters_at_once_answer_as_each_does_alone(case: Case) -> None:
    async def ask_all() -> list[httpx2.Response]:
        async with httpx2.AsyncClient(base_url=case.live.url, trust_env=False) as http:
            asked = [{"model": made.name, "input": list(TEXTS)} for made in case.made]
            return await asyncio.gather(*(http.post("/v1/classify", json=a) for a in asked))

    together = asyncio.run(ask_all())
    for made, answer in zip(case.made, together, strict=True):
        alone = classify(case.live, made.name, list(TEXTS))
        assert answer.json()["data"] == alone.json()["data"]  # to the last bit
        for got, text in zip(scores(answer), TEXTS, strict=True):
            assert torch.allclose(got, shares(made.logits(**te.inputs_of(text))[0]), atol=TOLERANCE)


@pytest.mark.parametrize("mode", ["factored", "merged"])
@pytest.mark.parametrize("shape", ["deberta", "deberta-v2", "deberta-v3", "fnet"])
def test_bases_that_share_or_read_padding_answer_as_peft_does(
    shape: str, mode: str, tmp_path: Path, start: Callable[..., Live]
) -> None:
    """An adapter on all linears, one on those of single texts and the base, at the same time."""
    folder = tmp_path / "base"
    te.other(shape).save_pretrained(folder)
    te.tokenizer().save_pretrained(folder)
    live = start(folder, mode=mode)
    shown = live.http.get("/v1/models/tiny").json()["overtone"]
    assert (bool(shown["shared"]), shown["pads"]) == (shape != "fnet", shape != "fnet")
    assert shown["left_out"] == []
    usual = [t for t in live.service.base.spec.targets if t not in shown["shared"]]
    rules: list[Any] = ["all-linear", usual]
    models: list[Any] = [te.other(shape)]
    for number, rule in enumerate(rules):
        config = LoraConfig(r=2, target_modules=rule)
        made = te.make(te.other(shape), config, tmp_path / f"a{number}", number)
        assert live.upload(made.name, made.files).status_code == 201
        models.append(made.model)
    asked = [(name, text) for text in TEXTS for name in ("tiny", "a0", "a1")]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda one: classify(live, *one), asked))
    for (name, text), answer in zip(asked, answers, strict=True):
        model = models[("tiny", "a0", "a1").index(name)]
        with torch.inference_mode():
            want = shares(model(**te.inputs_of(text)).logits[0])
        assert torch.allclose(scores(answer)[0], want, atol=TOLERANCE)


def test_names_reach_versions_aliases_and_digests(case: Case) -> None:
    made = case.made[0]
    digest = case.live.http.get(f"/v1/adapters/{made.name}").json()["digest"]
    expected = classify(case.live, made.name, "fine").json()["data"]
    for name in (f"{made.name}@1", f"{made.name}@latest", f"{made.name}@{digest}"):
        assert classify(case.live, name, "fine").json()["data"] == expected


@pytest.mark.parametrize(
    ("given", "status", "code", "param"),
    [
        ({"input": []}, 400, "invalid_request", "input"),
        ({"input": ""}, 400, "invalid_request", "input"),
        ({"input": [""]}, 400, "invalid_request", "input"),
        ({"input": [[]]}, 400, "invalid_request", "input[0]"),
        ({"input": 5}, 400, "invalid_request", "input"),
        ({}, 400, "invalid_request", "input"),
        ({"input": ["a"] * 2049}, 400, "invalid_request", "input"),
        ({"input": [te.VOCABULARY]}, 400, "invalid_request", "input"),
        ({"input": [-1]}, 400, "invalid_request", "input[0]"),
        ({"input": "x" * 500}, 400, "context_length_exceeded", "input"),
        ({"input": "x", "threshold": 0.5}, 400, "unsupported_parameter", "threshold"),
        ({"input": "x", "model": "nobody"}, 404, "model_not_found", "model"),
        ({"input": "x", "model": "bert-0@7"}, 404, "model_not_found", "model"),
    ],
)
def test_bad_requests_are_refused_by_name(
    case: Case, given: dict[str, Any], status: int, code: str, param: str
) -> None:
    answer = case.live.http.post("/v1/classify", json={"model": "tiny"} | given)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code), answer.text
    assert error["param"] in (param, None)
    assert classify(case.live, "tiny", "fine").status_code == 200


def test_a_text_that_is_too_long_is_cut_if_that_is_asked_for(case: Case) -> None:
    room = te.MAX_LENGTH - 2
    cut = classify(case.live, "tiny", "x" * 500, truncate=True)
    assert cut.json()["data"] == classify(case.live, "tiny", "x" * room).json()["data"]
    assert cut.json()["usage"]["prompt_tokens"] == te.MAX_LENGTH


@pytest.mark.parametrize("path", ["completions", "chat/completions", "embeddings"])
def test_other_uses_of_a_classifier_are_refused_with_what_it_is_for(case: Case, path: str) -> None:
    messages = [{"role": "user", "content": "x"}]
    body = {"model": "tiny", "prompt": "x", "messages": messages, "input": "x"}
    kept = {"completions": ("prompt",), "chat/completions": ("messages",)}.get(path, ("input",))
    asked = {key: value for key, value in body.items() if key in ("model", *kept)}
    answer = case.live.http.post(f"/v1/{path}", json=asked)
    assert answer.status_code == 400
    assert "/v1/classify" in answer.json()["error"]["message"]


def test_a_head_of_the_wrong_width_is_refused(case: Case) -> None:
    made = case.made[0]
    tensors = load(made.files[FILE])
    key = next(k for k in tensors if "classifier" in k and tensors[k].dim() == 2)
    tensors[key] = tensors[key][:, :-1].contiguous()
    answer = case.live.upload("wrong", made.files | {FILE: save(tensors)})
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["param"] == key


def test_labels_that_do_not_fit_the_head_are_refused(case: Case) -> None:
    answer = case.live.upload("wrong", case.made[0].files, metadata=te.metadata(["only"]))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "metadata")


def test_a_head_has_its_own_number_of_labels_and_may_name_them(
    tmp_path: Path, start: Callable[..., Live]
) -> None:
    """A base without a trained head, as people train on: roberta-base is a masked LM."""
    settings = te.config("roberta")
    torch.manual_seed(0)
    RobertaForMaskedLM(settings).save_pretrained(tmp_path / "base")
    te.tokenizer().save_pretrained(tmp_path / "base")
    live = start(tmp_path / "base", task="classify")
    refused = classify(live, "tiny", "x")
    assert refused.status_code == 400
    assert "no trained head" in refused.json()["error"]["message"]
    names = [f"l{i}" for i in range(5)]
    for number, count in enumerate((5, 2)):
        base = te.reference(tmp_path / "base", "roberta", num_labels=count)
        config = te.configs("roberta", "SEQ_CLS", None)[number]
        made = te.make(base, config, tmp_path / f"head{count}", number)
        files = dict(made.files)
        if count == 5:
            whole = json.loads(files[CONFIG]) | {"id2label": dict(enumerate(names))}
            files[CONFIG] = json.dumps(whole).encode()
        assert live.upload(made.name, files).status_code == 201
        answer = classify(live, made.name, TEXTS[0])
        want = shares(made.logits(**te.inputs_of(TEXTS[0]))[0])
        assert torch.allclose(scores(answer)[0], want, atol=TOLERANCE)
        told = [score["label"] for score in answer.json()["data"][0]["scores"]]
        assert told == (names if count == 5 else ["LABEL_0", "LABEL_1"])
    headless = te.make(
        te.reference(tmp_path / "base", "roberta"),
        te.configs("roberta", None, None)[0],
        tmp_path / "headless",
        0,
    )
    answer = live.upload("headless", headless.files)
    assert answer.status_code == 422
    assert "classifier" in answer.json()["error"]["message"]


def test_a_classifiers_adapter_is_refused_by_a_base_that_generates(case: Case, live: Live) -> None:
    answer = live.upload("classifier", case.made[0].files)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "task_type")
    for path in ("classify", "embeddings"):
        answer = live.http.post(f"/v1/{path}", json={"model": "tiny", "input": "x"})
        assert answer.status_code == 400
        assert "generates text" in answer.json()["error"]["message"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, start: Callable[..., Live]) -> Case:
    tmp = tmp_path_factory.mktemp("vit")
    folder = te.save(tmp / "base", "vit")
    made = [
        te.make(te.reference(folder, "vit"), config, tmp / f"vit-{number}", number)
        for number, config in enumerate(te.configs("vit", None, ["classifier"]))
    ]
    live = start(folder, max_image_pixels=10_000)
    for one in made:
        assert live.upload(one.name, one.files).status_code == 201
    return Case(live, folder, made)


def data_url(number: int, kind: str = "PNG", size: tuple[int, int] = (40, 30)) -> str:
    out = io.BytesIO()
    te.picture(number, size).save(out, kind, lossless=True)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(out.getvalue()).decode()


def test_an_image_classifiers_scores_are_pefts(images: Case) -> None:
    reader = images.live.service.base.images
    for made in images.made:
        urls = [data_url(1), data_url(2, "WEBP")]
        got = scores(classify(images.live, made.name, urls))
        assert len(got) == 2
        for row, number in zip(got, (1, 2), strict=True):
            pixels = reader(images=te.picture(number), return_tensors="pt")["pixel_values"]
            want = shares(made.logits(pixel_values=pixels)[0])
            assert torch.allclose(row, want, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("given", "status", "says"),
    [
        ("http://127.0.0.1/cat.png", 400, "not fetched"),
        ("file:///etc/passwd", 400, "not fetched"),
        ("a cat", 400, "data:"),
        ("data:image/svg+xml;base64,AAAA", 400, "image/png"),
        ("data:image/png;base64,AAAA", 400, "PNG"),
        ("data:image/png;base64,%%%", 400, "base64"),
        (data_url(1).replace("image/png", "image/jpeg"), 400, "JPEG"),
        (data_url(1)[:-400], 400, "PNG"),
        (data_url(1, size=(200, 200)), 413, "200 x 200"),
        ([1, 2], 400, "images"),
    ],
)
def test_bad_images_are_refused(images: Case, given: Any, status: int, says: str) -> None:
    answer = classify(images.live, "tiny", given)
    assert answer.status_code == status, answer.text
    assert says in answer.json()["error"]["message"]
    assert classify(images.live, "tiny", data_url(3)).status_code == 200
