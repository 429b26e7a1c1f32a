"""The console's modules without a browser: run by Node, some against a real server."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from adapters_core.contract.method_registry import registered
from live import Live
from registry.training_data.checks import form_of
from server.api import event_stream
from server.api.console_files import FOLDER
from trainer.training.preset_values import PRESETS
from waiting import until

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(not NODE, reason="needs Node")

#: What a browser has and Node has not.
BROWSER = "globalThis.sessionStorage = { getItem: () => null, setItem() {}, removeItem() {} };"
READ = """
const { events } = await import(API);
let text = "", by = null;
const body = { models: ["tiny"], prompt: "Once", max_tokens: 6, temperature: 0, stream: true };
const options = { method: "POST", json: body };
for await (const { chunk } of events(URL_OF_SERVER + "/v1/compare", options)) {
  text += chunk.choices[0]?.text ?? "";
  by = chunk.overtone;
}
console.log(JSON.stringify({ text, mode: by.mode }));
"""
#: Lines of a file, right and wrong.
LINES = (
    '{"text": "a"}',
    '{"text": ""}',
    '{"text": 3}',
    '{"text": "a", "label": "b"}',
    '{"prompt": "a", "completion": "b"}',
    '{"prompt": "", "completion": "b"}',
    '{"prompt": "a", "completion": ""}',
    '{"prompt": "a"}',
    '{"completion": "b"}',
    '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}',
    '{"messages": []}',
    '{"messages": "a"}',
    '{"question": "a"}',
    "{}",
)


def started(program: str) -> "subprocess.Popen[str]":
    assert NODE
    command = [NODE, "--input-type=module", "-e", BROWSER + program]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def told(program: str) -> Any:
    shown, _ = started(program).communicate(timeout=30)
    return json.loads(shown)


def module(name: str) -> str:
    return json.dumps((FOLDER / name).as_uri())


def test_a_stream_is_read_to_its_end_through_what_keeps_it_open(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "PING_S", 0.02)
    expected = live.complete("tiny", max_tokens=6).json()["choices"][0]["text"]
    program = READ.replace("API", module("api.js")).replace("URL_OF_SERVER", json.dumps(live.url))
    with live.paused():
        process = started(program)
        until(lambda: live.num_open == 2)
        body = {"model": "tiny", "prompt": "Once", "max_tokens": 1, "stream": True}
        with live.http.stream("POST", "/v1/completions", json=body) as later:
            lines = later.iter_lines()
            assert [next(lines) for _ in range(6)] == [": ping", ""] * 3  # the page has had some
    shown, _ = process.communicate(timeout=30)
    assert json.loads(shown) == {"text": expected, "mode": "base"}


def test_the_methods_and_presets_that_are_explained_are_the_trainers() -> None:
    shown = told(
        f"console.log(JSON.stringify((await import({module('pages/methods.js')})).METHODS))"
    )
    assert set(shown) == set(registered())
    assert {name: dict(PRESETS[name].config) for name in shown} == {
        name: one["preset"] for name, one in shown.items()
    }


def test_a_line_that_the_page_refuses_is_one_that_the_server_refuses() -> None:
    program = (
        f"const {{ faultOf }} = await import({module('pages/training/check.js')});"
        f"console.log(JSON.stringify({json.dumps(LINES)}.map(faultOf)))"
    )
    refused = [line for line, fault in zip(LINES, told(program), strict=True) if fault]
    assert len(refused) == 8
    for line in refused:
        with pytest.raises(ValueError, match="has"):
            form_of(json.loads(line))


def test_a_line_that_is_no_object_is_told_as_such() -> None:
    program = (
        f"const {{ faultOf }} = await import({module('pages/training/check.js')});"
        f"console.log(JSON.stringify(['[1]', 'null', '{{'].map(faultOf)))"
    )
    array, null, broken = told(program)
    assert array == null == "is no JSON object"
    assert broken.startswith("is not JSON: ")


def test_files_of_the_console_are_short_enough_to_read() -> None:
    own = [path for path in FOLDER.rglob("*.js") if "vendor" not in path.parts]
    lengths = {path.relative_to(FOLDER): len(path.read_text().splitlines()) for path in own}
    assert {path: n for path, n in lengths.items() if n > 250} == {}
    assert Path("api.js") in lengths
