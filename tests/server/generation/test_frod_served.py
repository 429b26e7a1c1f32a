"""FRoD over REST: with V in the file and without it, in both modes, and refused where V differs."""

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import FrodConfig, PeftModel, get_peft_model
from safetensors.torch import load, save

import tiny
from adapters_core.base.spec import spec_of, weights_of
from adapters_core.format.write import write_adapter
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.methods import FRoD
from live import BASE, CONFIG, FILE, Files, Live
from made import CPU, random_adapter

PROMPT = [79, 110, 99, 101, 32, 7, 200]
KEY = "base_model.frod_digest.self_attn_q_proj"


@pytest.fixture(scope="module", params=("factored", "merged"))
def server(request: pytest.FixtureRequest, serve_all: Callable[..., Live]) -> Live:
    return serve_all(mode=request.param)


def files_of(folder: Path) -> Files:
    return {name: (folder / name).read_bytes() for name in (FILE, CONFIG)}


def written(folder: Path, seed: int, **options: object) -> Files:
    """Return an adapter of query and value that Overtone has written."""
    model = tiny.model("llama")
    spec = spec_of(model, BASE)
    shapes = {t: shape for t, shape in spec.targets.items() if t.endswith(("q_proj", "v_proj"))}
    bases = BasisCache(CPU, weights_of(model, spec))
    methods, layers = random_adapter(FRoD(**options), shapes, bases, seed)
    write_adapter(folder, methods, layers, spec)
    return files_of(folder)


def of_peft(folder: Path) -> tuple[Files, PeftModel]:
    """Return what PEFT saves, and PEFT's own model of it."""
    config = FrodConfig(
        target_modules=["q_proj", "v_proj"], progressbar=False, task_type="CAUSAL_LM"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PEFT's use of transformers
        model = get_peft_model(copy.deepcopy(tiny.model("llama")), config)
        for name, parameter in model.named_parameters():
            if "frod_lambda" in name:
                noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
                parameter.data = parameter.data + noise
        model.save_pretrained(str(folder))
    return files_of(folder), model.eval()


def greedy(model: PeftModel, num_tokens: int = 8) -> list[int]:
    """Return the tokens that are PEFT's likeliest, one after the other."""
    tokens = list(PROMPT)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about sparse tensors
        for _ in range(num_tokens):
            tokens.append(int(model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
    return tokens[len(PROMPT) :]


def test_what_peft_saves_with_v_answers_as_peft_does(server: Live, tmp_path: Path) -> None:
    files, model = of_peft(tmp_path)
    answer = server.upload("pefts", files)
    assert answer.status_code == 201, answer.text
    assert answer.json()["method"] == "frod"
    assert server.tokens("pefts", PROMPT, ignore_eos=True) == greedy(model)
    assert server.tokens("pefts", PROMPT, ignore_eos=True) != server.tokens("tiny", PROMPT)


def test_both_forms_of_one_adapter_answer_alike(server: Live, tmp_path: Path) -> None:
    forms = {
        name: written(tmp_path / name, 3, sparse_rate=0.02, saved=saved)
        for name, saved in (("small", False), ("saved", True))
    }
    assert len(forms["small"][FILE]) < len(forms["saved"][FILE]) / 10
    tokens = []
    for name, files in forms.items():
        answer = server.upload(name, files)
        assert answer.status_code == 201, answer.text
        assert answer.json()["method_config"]["save_projection"] is (name == "saved")
        tokens.append(server.tokens(name, PROMPT, ignore_eos=True))
    assert tokens[0] == tokens[1] != server.tokens("tiny", PROMPT, ignore_eos=True)


def test_both_modes_answer_alike(serve_all: Callable[..., Live], tmp_path: Path) -> None:
    files = written(tmp_path, 5, sparse_rate=1e-4)
    answers = []
    for mode in ("factored", "merged"):
        live = serve_all(mode=mode)
        assert live.upload("both", files).status_code == 201
        answers.append(live.tokens("both", PROMPT, ignore_eos=True, max_tokens=16))
    assert answers[0] == answers[1]


def test_another_v_is_refused_and_the_server_still_serves(server: Live, tmp_path: Path) -> None:
    files = written(tmp_path, 4, sparse_rate=0.0)
    tensors = load(files[FILE])
    said = bytes(tensors[KEY][0].tolist()).hex()
    tensors[KEY][0, 0] ^= 1
    wrong = bytes(tensors[KEY][0].tolist()).hex()
    answer = server.upload("wrong", {FILE: save(tensors), CONFIG: files[CONFIG]})
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("invalid_adapter", KEY)
    assert said in error["message"]
    assert wrong in error["message"]
    assert server.http.get("/v1/adapters/wrong").status_code == 404
    assert server.tokens("tiny", PROMPT)
    assert server.upload("right", files).status_code == 201
    assert server.tokens("right", PROMPT)


def test_pefts_file_without_v_is_refused(server: Live, tmp_path: Path) -> None:
    files, _ = of_peft(tmp_path)
    tensors = {k: v for k, v in load(files[FILE]).items() if k.startswith("base_model.model.")}
    config = json.dumps(json.loads(files[CONFIG]) | {"save_projection": False}).encode()
    answer = server.upload("without", {FILE: save(tensors), CONFIG: config})
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "save_projection"
