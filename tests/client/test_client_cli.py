import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from overtone_client import _batch_commands, _session
from overtone_client.cli import app

from .fake_overtone import API_KEY, Fault, State

Run = Callable[..., Result]


def document(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    return json.loads(result.stdout)


def fault(result: Result) -> Any:
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    return json.loads(result.stderr)["error"]


def test_upload_publishes_and_says_so(run: Run, state: State, folder: Path) -> None:
    done = run("upload", folder, "--name", "demo", "--alias", "prod", "--metadata", "by=me=you")
    assert done.exit_code == 0
    assert done.stdout.startswith("demo@1 is ready (sha256:")
    assert done.stderr == ""  # no progress bar where nobody watches
    assert state.form["metadata"] == {"by": "me=you"}
    assert state.aliases["demo"]["prod"] == 1


def test_upload_as_json_is_the_record(run: Run, folder: Path) -> None:
    record = document(run("upload", folder, "--name", "demo", "--json"))
    assert (record["object"], record["name"], record["version"]) == ("adapter", "demo", 1)


def test_list_is_a_table_for_people(run: Run, state: State) -> None:
    state.add("demo")
    state.add("[red]evil\x1b[2J")
    lines = run("list").stdout.splitlines()
    assert lines[0].split() == ["NAME", "VERSION", "METHOD", "SIZE", "ALIASES", "CREATED"]
    assert lines[1].split()[0] == "[red]evil[2J"
    assert lines[2].split()[:5] == ["demo", "1", "fourierft", "12", "B"]
    assert "latest" not in lines[2]  # as it is the version that the line is about


EVIL = "evil\x1b[2J"


@pytest.mark.parametrize(
    "words",
    [
        ["rollback", EVIL],
        ["alias", EVIL, "prod", 1],
        ["delete", EVIL, "--yes"],
        ["upload", Path, "--name", EVIL],
        ["batch", "results", "batch_" + "0" * 24],
    ],
    ids=lambda words: words[0],
)
def test_what_a_server_says_does_not_steer_the_terminal(
    run: Run, state: State, folder: Path, words: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_batch_commands, "is_terminal", lambda: True)
    state.add(EVIL)
    state.add(EVIL, digest="sha256:\x1b[2J")
    id_ = state.batches.add(
        {"endpoint": "/v1/completions", "input_file_id": "f", "completion_window": "24h"}
    )["id"]
    state.batches.batches[id_] |= {"status": "completed", "output_file_id": "file-1"}
    state.training.contents["file-1"] = b'{"text": "evil\x1b[2J"}\n'
    done = run(*(folder if word is Path else word for word in words))
    assert done.exit_code == 0, done.output
    assert "evil[2J" in done.stdout
    assert "\x1b" not in done.stdout


def test_list_is_one_document_for_programs(run: Run, state: State) -> None:
    nothing = {"object": "list", "data": [], "has_more": False}
    assert document(run("--json", "list")) == nothing
    record = state.add("demo")
    assert document(run("list", "--json", "--limit", "1"))["data"] == [record]


def test_a_list_that_goes_on_says_so(run: Run, state: State) -> None:
    for number in range(5):
        state.add(f"a{number}")
    cut = run("list", "--limit", "2")
    assert [line.split()[0] for line in cut.stdout.splitlines()] == ["NAME", "a0", "a1"]
    assert cut.stderr == "There are more than these 2: --limit\n"
    assert document(run("list", "--limit", "2", "--json"))["has_more"] is True
    for whole in (run("list"), run("list", "--limit", "5")):
        assert len(whole.stdout.splitlines()) == 6
        assert whole.stderr == ""
    assert len(run("models").stdout.splitlines()) == 7


def test_empty_list_says_so(run: Run) -> None:
    assert run("list").stdout == "There are no adapters.\n"


def test_show_has_the_facts_and_the_versions(run: Run, state: State) -> None:
    state.add("demo", b"1")
    state.add("demo", b"2", metadata={"by": "me"})
    text = run("show", "demo").stdout
    for expected in ("demo", "sha256:", "n=8", "by=me", "1, 2", "names and shapes only"):
        assert expected in text
    shown = document(run("--json", "show", "demo"))
    assert [each["version"] for each in shown["versions"]] == [1, 2]


def test_delete_asks_nobody_when_nobody_is_there(run: Run, state: State) -> None:
    state.add("demo")
    refused = run("delete", "demo", text="y\n")
    assert refused.exit_code == 2
    assert "--yes" in refused.stderr
    assert "demo" in state.adapters
    assert run("delete", "demo", "--yes").stdout == "Deleted demo and all its versions.\n"
    assert "demo" not in state.adapters


def test_delete_takes_one_version(run: Run, state: State) -> None:
    state.add("demo", b"1")
    state.add("demo", b"2")
    deleted = document(run("delete", "demo", "--version", "1", "--yes", "--json"))
    assert deleted == {"name": "demo", "version": 1, "deleted": True}
    assert [each["version"] for each in state.adapters["demo"]] == [2]


def test_alias_and_rollback(run: Run, state: State) -> None:
    for data in (b"1", b"2"):
        state.add("demo", data)
    assert run("alias", "demo", "prod", "2").stdout == "demo@prod is now version 2\n"
    assert document(run("alias", "demo", "prod", "1", "--json"))["etag"] == '"1"'
    stale = run("alias", "demo", "prod", "2", "--if-version", "2")
    assert stale.exit_code == 1
    assert "error: precondition_failed: it was moved (another caller moved it" in stale.stderr
    assert run("rollback", "demo").stdout == "demo is now demo@1\n"


def test_share_says_which_tenants_may_use_an_adapter_and_how(run: Run, state: State) -> None:
    state.add("demo")
    granted = run("share", "demo", "--with", "bob", "--with", "carol")
    assert granted.stdout == "demo may be used by bob, carol, as alice:demo\n"
    assert state.bodies[-1] == {"shared_with": ["bob", "carol"]}
    assert run("share", "demo", "--all").stdout.startswith("demo may be used by all tenants, bob")
    assert state.bodies[-1] == {"shared": True}
    assert "shared with" in run("show", "demo").stdout
    assert run("share", "demo", "--none").stdout == "demo may be used by no other tenant\n"
    assert state.bodies[-1] == {"shared": False, "shared_with": []}
    for words in ([], ["--none", "--all"], ["--none", "--with", "bob"]):
        assert run("share", "demo", *words).exit_code == 2


def test_models_names_the_base_of_each(run: Run, state: State) -> None:
    state.add("demo")
    assert [line.split() for line in run("models").stdout.splitlines()] == [
        ["MODEL", "BASE"],
        ["tiny"],
        ["demo", "tiny"],
    ]
    assert len(document(run("models", "--json"))["data"]) == 2


def test_answers_are_streamed_without_control_characters(run: Run, state: State) -> None:
    assert run("complete", "demo", "Once").stdout == "Hello, [31mworld\n"
    answer = run("chat", "demo", "-m", "hi", "--system", "be kind", "--max-tokens", "3")
    assert answer.stdout == "Hello, [31mworld\n"
    assert state.bodies[0]["prompt"] == "Once"
    assert state.bodies[1] == {
        "model": "demo",
        "messages": [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": "hi"},
        ],
        "max_tokens": 3,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_calls_of_functions_are_printed(run: Run, state: State, tmp_path: Path) -> None:
    tools = tmp_path / "tools.json"
    tools.write_text('[{"type": "function", "function": {"name": "weather"}}]')
    asked = ("chat", "calls", "-m", "hi", "--tools", str(tools))
    assert run(*asked).stdout == "Hello, [31mworld\nweather {}\n"
    assert state.bodies[-1]["tools"] == json.loads(tools.read_text())
    assert "tool_choice" not in state.bodies[-1]
    run(*asked, "--tool-choice", "required")
    assert state.bodies[-1]["tool_choice"] == "required"
    run(*asked, "--tool-choice", "weather")
    assert state.bodies[-1]["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    tools.write_text("[")
    assert "cannot be read as JSON" in run(*asked).stderr
    assert "--tool-choice needs --tools" in run(*asked[:4], "--tool-choice", "none").stderr


def test_answers_as_json_are_the_servers_documents(run: Run) -> None:
    chat = document(run("--json", "chat", "demo", "-m", "hi", "--temperature", "0"))
    assert chat["choices"][0]["message"]["content"] == "Hello, world"
    assert document(run("--json", "complete", "demo", "x"))["overtone"]["version"] == 1


def test_a_comparison_shows_each_model_with_what_it_said(run: Run, state: State) -> None:
    shown = run("compare", "demo", "tiny", "--prompt", "Once", "--max-tokens", "3", "--seed", "1")
    assert shown.stdout == "demo\nHello, world\n\ntiny\nHello, world\n"
    run("compare", "demo", "-m", "hi", "--system", "be kind")
    assert state.bodies == [
        {"models": ["demo", "tiny"], "prompt": "Once", "max_tokens": 3, "seed": 1},
        {
            "models": ["demo"],
            "messages": [
                {"role": "system", "content": "be kind"},
                {"role": "user", "content": "hi"},
            ],
        },
    ]
    found = document(run("compare", "demo", "--prompt", "-", "--json", text="from a pipe"))
    assert found["data"][0]["answer"]["choices"][0]["text"] == "Hello, world"


def test_a_comparison_with_a_failed_model_shows_it_and_fails(run: Run) -> None:
    shown = run("compare", "fails", "demo", "--prompt", "Once")
    assert shown.stdout == "fails\nerror: too_large: too large\n\ndemo\nHello, world\n"
    assert shown.exit_code == 1
    for wrong in ([], ["-p", "a", "-m", "b"], ["-p", "a", "--system", "b"]):
        assert run("compare", "demo", *wrong).exit_code == 2


def test_prompts_come_from_standard_input_too(run: Run, state: State) -> None:
    run("complete", "demo", "-", text="from a pipe")
    run("chat", "demo", text="hello\nthere")
    assert state.bodies[0]["prompt"] == "from a pipe"
    assert state.bodies[1]["messages"][-1]["content"] == "hello\nthere"


def test_base_without_a_chat_template_leads_to_complete(run: Run) -> None:
    refused = run("chat", "no-template", "-m", "hi")
    assert refused.exit_code == 1
    assert "overtone complete NAME PROMPT" in refused.stderr


@pytest.mark.parametrize("model", ["fails-midway", "cut", "ends-early", "garbled"])
def test_broken_stream_ends_in_one_line(run: Run, model: str) -> None:
    broken = run("complete", model, "x")
    assert broken.exit_code == 1
    assert broken.stdout.startswith("Hello")
    assert broken.stderr.count("\n") == 1


def test_servers_error_is_one_line_with_a_next_step(run: Run) -> None:
    missing = run("show", "demo")
    assert missing.exit_code == 1
    assert missing.stdout == ""
    assert missing.stderr == (
        "error: model_not_found: no adapter 'demo' "
        "(`overtone list` and `overtone models` show what is there)\n"
    )


def test_servers_error_as_json(run: Run) -> None:
    missing = run("show", "demo", "--json")
    assert missing.exit_code == 1
    expected = {"code": "model_not_found", "status": 404, "request_id": "req-1", "param": None}
    assert expected.items() <= fault(missing).items()


@pytest.mark.parametrize(
    ("raised", "step"),
    [
        (Fault(429, "overloaded", "full", headers={"Retry-After": "3"}), "try again in 3 s"),
        (Fault(500, "internal_error", "oh"), "request id req-1"),
        (Fault(404, "brand_new", "no"), "overtone list"),
    ],
)
def test_next_step_fits_the_error(run: Run, state: State, raised: Fault, step: str) -> None:
    state.lasting_fault = raised
    assert step in run("list").stderr


def test_unreachable_server_says_how_to_start_one() -> None:
    done = CliRunner().invoke(app, ["list", "--url", "http://127.0.0.1:9"])
    assert done.exit_code == 1
    assert "overtone demo" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "--foo"],
        ["lsit"],
        ["show"],
        ["alias", "demo", "prod", "three"],
        ["list", "--limit", "0"],
        ["upload", "/no/such/folder", "--name", "demo"],
        ["chat", "demo", "--temperature", "-1", "-m", "x"],
        ["show", ".."],
        ["--url"],
    ],
)
def test_wrong_usage_is_two_and_one_line(run: Run, state: State, arguments: list[str]) -> None:
    wrong = run(*arguments)
    assert wrong.exit_code == 2
    assert wrong.stderr.count("\n") == 1
    assert wrong.stderr.startswith("error: ")
    assert run(*arguments, "--json").exit_code == 2
    assert state.calls == []


def test_wrong_usage_as_json(run: Run) -> None:
    wrong = run("list", "--foo", "--json")
    assert fault(wrong) == {
        "message": "No such option: --foo",
        "code": "usage",
        "next_step": "see `root list --help`",
    }


@pytest.mark.parametrize("pair", ["novalue", "=x"])
def test_metadata_must_be_pairs(run: Run, folder: Path, pair: str) -> None:
    assert run("upload", folder, "--name", "a", "--metadata", pair).exit_code == 2


def test_folder_without_an_adapter_is_a_usage_error(run: Run, tmp_path: Path) -> None:
    wrong = run("upload", tmp_path, "--name", "demo", "--json")
    assert wrong.exit_code == 2
    assert fault(wrong)["code"] == "invalid_argument"


def test_settings_come_from_the_environment(
    url: str, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.needs_key = True
    monkeypatch.setenv("OVERTONE_URL", url)
    refused = CliRunner().invoke(app, ["list"])
    assert "set OVERTONE_API_KEY" in refused.stderr
    monkeypatch.setenv("OVERTONE_API_KEY", API_KEY)
    assert CliRunner().invoke(app, ["list"]).exit_code == 0
    assert CliRunner().invoke(app, ["list", "--api-key", "wrong"]).exit_code == 1


def test_help_never_shows_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERTONE_API_KEY", "sk-secret")
    for arguments in (["--help"], ["list", "--help"], []):
        assert "sk-secret" not in CliRunner().invoke(app, arguments).output


def test_facts_are_one_word_after_the_other_and_no_word_is_broken(
    run: Run, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = [f"model.layers.{i}.self_attn.q_proj" for i in range(12)]
    training = {"epochs": 2}
    state.add(
        "poet",
        target_modules=[*layers, "lm_head"],
        residency=["factored", "merged"],
        metadata={"training": training},
    )
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(_session, "is_terminal", lambda: True)
    shown = run("show", "poet").stdout
    digest = str(state.adapters["poet"][0]["digest"])
    assert digest in shown
    assert "residency     factored, merged\n" in shown
    assert "model.layers.*.self_attn.q_proj×12, lm_head" in shown
    assert 'training={"epochs": 2}' in shown


def test_a_version_may_be_named_behind_the_name(run: Run, state: State) -> None:
    state.add("poet", b"1")
    state.add("poet", b"2")
    state.add("poet", b"3")
    assert document(run("show", "poet@2", "--json"))["version"] == 2
    assert document(run("show", "poet@latest", "--json"))["version"] == 3
    missing = run("show", "poet@9")
    assert missing.exit_code == 2
    assert "poet has no version '9'; `overtone show poet` lists them" in missing.stderr
    assert run("delete", "poet@2", "--yes").stdout == "Deleted poet@2.\n"
    assert [record["version"] for record in state.adapters["poet"]] == [1, 3]
    for wrong in (("poet@latest",), ("poet@1", "--version", "3")):
        assert run("delete", *wrong, "--yes").exit_code == 2
    assert len(state.adapters["poet"]) == 2
