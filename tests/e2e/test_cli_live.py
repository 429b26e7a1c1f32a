"""The client library and the program `overtone` against a live server."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import overtone_client as oc
import spectra
from live import Live
from overtone_client import AsyncClient, Client
from waiting import until

PROGRAM = str(Path(sys.executable).with_name("overtone"))
MESSAGES = [{"role": "user", "content": "Say something."}]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def client(live: Live) -> Iterator[Client]:
    with Client(live.url, timeout=60) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[int], Path]:
    """Return an adapter's folder, as PEFT would have saved it."""

    def written(seed: int, **changes: Any) -> Path:
        place = tmp_path / str(seed)
        place.mkdir()
        for name, content in spectra.files(seed, **changes).items():
            (place / name).write_bytes(content)
        return place

    return written


# The library


@pytest.mark.parametrize("name", ["life", "org/life"])
def test_an_adapters_life_through_the_client(
    client: Client, live: Live, folder: Callable[[int], Path], name: str
) -> None:
    seen: list[tuple[int, int]] = []
    first = client.upload(
        folder(1),
        name,
        alias="prod",
        metadata={"team": "blue"},
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert (first.name, first.version, first.method) == (name, 1, "fourierft")
    assert first.aliases == {"latest": 1, "prod": 1}
    assert first.metadata == {"team": "blue"}
    assert first.base.is_verified is False
    assert seen[-1][0] == seen[-1][1] == first.size_bytes
    second = client.upload(folder(2), name)
    assert [each.digest for each in client.versions(name)] == [first.digest, second.digest]
    assert client.content(name, 2) == spectra.files(2)["adapter_model.safetensors"]
    moved = client.alias(name, "prod", 2, if_match=1)
    with pytest.raises(oc.PreconditionFailed):
        client.alias(name, "prod", 1, if_match=1)
    assert client.alias(name, "prod", 1, if_match=moved.etag).version == 1
    assert client.rollback(name).version == 1
    assert name in {adapter.name for adapter in client.list_adapters(prefix=name[:-1])}
    with pytest.raises(oc.AdapterInUse):
        client.delete(name, 1)
    client.delete(name, 2)
    assert [each.version for each in client.versions(name)] == [1]
    client.delete(name)
    with pytest.raises(oc.ModelNotFound) as caught:
        client.show(name)
    assert caught.value.request_id


def test_answers_through_the_client(
    client: Client, live: Live, folder: Callable[[int], Path]
) -> None:
    record = client.upload(folder(3), "asks")
    asked: dict[str, Any] = {"max_tokens": 8, "temperature": 0}
    whole = client.complete("asks", "Once", return_token_ids=True, **asked)
    assert list(whole.choices[0].token_ids or ()) == live.tokens("asks")
    assert whole.answered_by is not None
    assert (whole.answered_by.adapter, whole.answered_by.digest) == ("asks", record.digest)
    chunks = list(client.stream_complete("asks", "Once", **asked))
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert chunks[-1].usage == whole.usage
    chat = client.chat("asks", MESSAGES, **asked)
    pieces = list(client.stream_chat("asks", MESSAGES, **asked))
    assert "".join(piece.text for piece in pieces) == chat.text
    assert {"tiny", "asks"} <= {model.id for model in client.models()}
    assert client.health().is_ready


def test_closing_a_stream_cancels_its_generation(client: Client, live: Live) -> None:
    stream = client.stream_complete("tiny", "Once", max_tokens=1000, ignore_eos=True)
    next(stream)
    assert live.num_open == 1
    stream.close()
    until(lambda: live.num_open == 0)


def test_errors_are_the_clients_own_classes(
    client: Client, folder: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(oc.ModelNotFound):
        client.complete("nobody", "Once")
    with pytest.raises(oc.ModelNotFound):
        next(client.stream_complete("nobody", "Once"))
    with pytest.raises(oc.UnsupportedParameter) as unsupported:
        client.complete("tiny", "Once", suffix="x")
    assert unsupported.value.param == "suffix"
    with pytest.raises(oc.ContextLengthExceeded):
        client.complete("tiny", "x" * 2000)
    with pytest.raises(oc.UnknownMethod):
        client.upload(folder(4, peft_type="MAGIC"), "bad")
    with pytest.raises(oc.InvalidRequest):
        client.upload(folder(5), "not a name")


def test_the_async_client_does_the_same(live: Live, folder: Callable[[int], Path]) -> None:
    async def work() -> None:
        async with AsyncClient(live.url, timeout=60) as client:
            record = await client.upload(folder(6), "awaited")
            asked: dict[str, Any] = {"max_tokens": 8, "temperature": 0}
            answers = await asyncio.gather(
                *(client.complete("awaited", "Once", **asked) for _ in range(4))
            )
            streamed = [
                chunk.text async for chunk in client.stream_complete("awaited", "Once", **asked)
            ]
            assert {answer.text for answer in answers} == {"".join(streamed)}
            assert all(a.answered_by and a.answered_by.digest == record.digest for a in answers)
            assert "awaited" in [adapter.name async for adapter in client.list_adapters()]
            with pytest.raises(oc.ModelNotFound):
                await client.chat("nobody", MESSAGES)
            await client.delete("awaited")

    asyncio.run(work())


# The program


@pytest.fixture
def overtone(live: Live) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    def run(*arguments: str, url: str = live.url, text: str = "") -> Any:
        kept = {name: v for name, v in os.environ.items() if not name.startswith("OVERTONE_")}
        return subprocess.run(
            [PROGRAM, *arguments],
            env={**kept, "OVERTONE_URL": url, "COLUMNS": "200"},
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_an_adapters_life_through_the_program(
    overtone: Run, live: Live, folder: Callable[[int], Path]
) -> None:
    done = overtone("upload", str(folder(11)), "--name", "prog", "--alias", "prod")
    assert (done.returncode, done.stderr) == (0, "")
    assert "prog@1 is ready (sha256:" in done.stdout
    made = json.loads(overtone("upload", str(folder(12)), "--name", "prog", "--json").stdout)
    assert made["version"] == 2
    listed = overtone("list").stdout
    assert "prog" in listed
    assert "fourierft" in listed
    names = [each["name"] for each in json.loads(overtone("list", "--json").stdout)["data"]]
    assert "prog" in names
    shown = json.loads(overtone("show", "prog", "--json").stdout)
    assert [each["version"] for each in shown["versions"]] == [1, 2]
    assert "latest=2, prod=1" in overtone("show", "prog").stdout
    assert overtone("alias", "prog", "prod", "2", "--if-version", "1").returncode == 0
    assert live.http.get("/v1/adapters/prog").json()["aliases"]["prod"] == 2
    late = overtone("alias", "prog", "prod", "1", "--if-version", "1")
    assert late.returncode == 1
    assert "precondition_failed" in late.stderr
    assert overtone("delete", "prog", "--yes").returncode == 0
    assert live.complete("prog").status_code == 404


def test_the_program_completes_and_chats_token_by_token(
    overtone: Run, live: Live, folder: Callable[[int], Path]
) -> None:
    import tiny

    assert overtone("upload", str(folder(13)), "--name", "talks").returncode == 0
    told = json.loads(
        overtone("complete", "talks", "Once", "--max-tokens=8", "--temperature=0", "--json").stdout
    )
    assert told["overtone"]["adapter"] == "talks"
    ids = live.tokens("talks")
    assert told["choices"][0]["text"] == tiny.tokenizer().decode(ids, skip_special_tokens=True)
    piped = overtone("complete", "talks", "-", "--max-tokens=8", "--temperature=0", text="Once")
    assert piped.returncode == 0
    assert piped.stdout.strip()
    chat = overtone("chat", "talks", "--message=Hi", "--max-tokens=8", "--temperature=0", "--json")
    assert json.loads(chat.stdout)["choices"][0]["message"]["role"] == "assistant"
    assert overtone("chat", "talks", "-m", "Hi", "--max-tokens=8").returncode == 0


def test_the_program_holds_answers_to_a_schema_a_choice_or_an_expression(
    overtone: Run, live: Live, folder: Callable[[int], Path], tmp_path: Path
) -> None:
    assert overtone("upload", str(folder(14)), "--name", "held").returncode == 0
    schema, grammar = tmp_path / "answer.json", tmp_path / "grammar.lark"
    schema.write_text(json.dumps({"type": "array", "items": {"const": 1}, "maxItems": 3}))
    grammar.write_text('start: "(" start ")" | "x"')
    chat = overtone("chat", "held", "-m", "Hi", "--json-schema", str(schema))
    assert set(json.loads(chat.stdout)) <= {1}, chat.stderr
    picked = overtone("complete", "held", "Hi", "--choice=yes", "--choice=no", "--max-tokens=9")
    assert picked.stdout.strip() in ("yes", "no")
    matched = overtone("complete", "held", "Hi", "--regex=a{3}b", "--max-tokens=9")
    assert matched.stdout.strip() == "aaab"
    nested = overtone("chat", "held", "-m", "Hi", "--grammar", str(grammar), "--max-tokens=99")
    assert set(nested.stdout.strip()) <= set("(x)")


@pytest.mark.parametrize(
    ("arguments", "code", "status"),
    [
        (("complete", "tiny", "x", "--json-schema", "/nowhere"), "invalid_argument", 2),
        (("complete", "tiny", "x", "--regex", "a("), "invalid_request", 1),
        (("show", "nobody"), "model_not_found", 1),
        (("complete", "nobody", "Once"), "model_not_found", 1),
        (("complete", "tiny", "x" * 2000), "context_length_exceeded", 1),
        (("delete", "nobody", "--yes"), "model_not_found", 1),
        (("delete", "nobody"), "invalid_argument", 2),
        (("upload", "/", "--name", "x"), "invalid_argument", 2),
        (("show",), "usage", 2),
        (("dance",), "usage", 2),
    ],
)
def test_an_error_has_a_code_and_the_program_its_exit_status(
    overtone: Run, arguments: tuple[str, ...], code: str, status: int
) -> None:
    ended = overtone(*arguments, "--json")
    assert (ended.returncode, ended.stdout) == (status, "")
    assert json.loads(ended.stderr)["error"]["code"] == code


def test_a_server_that_is_not_there_is_said(overtone: Run) -> None:
    ended = overtone("list", url="http://127.0.0.1:9")
    assert ended.returncode == 1
    assert "connection_failed" in ended.stderr
    assert "overtone serve" in ended.stderr


@pytest.mark.parametrize(
    "fault", [("--set", "no_such=1"), ("--method", "no_such"), ("--config", "no_such=1")]
)
def test_a_training_job_that_is_refused_leaves_no_file_behind(
    overtone: Run, client: Client, tmp_path: Path, fault: tuple[str, str]
) -> None:
    data = tmp_path / "texts.jsonl"
    data.write_text('{"text": "one"}\n{"text": "two"}\n')
    before = [file.id for file in client.training.files()]
    words = ("--data", str(data), "--validation", str(data), "--name", "refused", *fault)
    done = overtone("train", *words)
    assert done.returncode == 1
    assert "no_such" in done.stderr
    assert [file.id for file in client.training.files()] == before


def test_a_job_is_found_by_how_its_id_begins(overtone: Run, client: Client, tmp_path: Path) -> None:
    data = tmp_path / "texts.jsonl"
    data.write_text('{"text": "one"}\n{"text": "two"}\n')
    filed = overtone("train", "--data", str(data), "--name", "early")
    assert filed.returncode == 0, filed.stderr
    whole = filed.stdout.split()[0]
    assert overtone("jobs").stdout.splitlines()[1].split()[0] == whole
    for start in (whole, whole[:14], whole.removeprefix("ftjob-")[:8]):
        done = overtone("job", start, "--json")
        assert json.loads(done.stdout)["id"] == whole
    assert overtone("job", whole[:14], "--cancel").returncode == 0
    missing = overtone("job", "zz")
    assert missing.returncode == 2
    assert "no job's id begins with 'zz': `overtone jobs` lists them" in missing.stderr


def test_evaluate_prints_the_figures_and_leaves_no_file(live: Live, tmp_path: Path) -> None:
    data = tmp_path / "held.jsonl"
    data.write_text("".join(json.dumps({"text": f"line {i}"}) + "\n" for i in range(7)))
    before = live.http.get("/v1/files").json()["data"]
    command = [PROGRAM, "--url", live.url, "evaluate", "tiny", "--data", str(data)]
    environment = {**os.environ, "NO_PROXY": "127.0.0.1", "COLUMNS": "80"}
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    told = subprocess.run([*command, "--json"], env=environment, capture_output=True, check=True)
    metrics = json.loads(told.stdout)["metrics"]
    assert set(metrics) == {"eval_loss", "perplexity", "accuracy"}
    for name, value in metrics.items():
        assert any(line.split() == [name, f"{value:.6g}"] for line in shown.stdout.splitlines())
    data.write_text('{"nothing": 1}\n')
    refused = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "line 1" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert live.http.get("/v1/files").json()["data"] == before
