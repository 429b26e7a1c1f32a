"""The console's own script, run by Node against a real server, with elements that hold text."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from live import Live
from server.api import event_stream
from waiting import until

NODE = shutil.which("node")
PAGE = Path(event_stream.__file__).parents[1] / "console" / "index.html"

#: The elements of the page as far as the script uses them; `submit` presses the button.
ELEMENTS = """
const made = {};
const element = () => ({ value: "", textContent: "", text: "", options: [],
  replaceChildren(...all) { this.text = all.map((one) => one.textContent ?? "").join(""); },
  append(...all) { this.text += all.map((one) => one.textContent ?? one).join(""); },
  addEventListener(name, run) { this[name] = run; } });
globalThis.Option = class { constructor(text) { this.textContent = text; } };
globalThis.document = {
  getElementById: (id) => made[id] ??= element(), createElement: () => element() };
const real = fetch;
globalThis.fetch = (path, options) => real(URL_OF_SERVER + path, options);
Object.assign(document.getElementById("prompt"), { value: "Once" });
Object.assign(document.getElementById("model"), { value: "tiny" });
Object.assign(document.getElementById("tokens"), { value: "6" });
"""
SUBMIT = """
await document.getElementById("ask").submit({ preventDefault() {} });
console.log(JSON.stringify({ who: made.who.textContent, answer: made.answer.text }));
process.exit(0);
"""


@pytest.mark.skipif(not NODE, reason="needs Node")
def test_the_console_shows_an_answer_that_had_to_wait(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert NODE
    monkeypatch.setattr(event_stream, "PING_S", 0.02)
    script = PAGE.read_text().partition('<script type="module">')[2].partition("</script>")[0]
    program = ELEMENTS.replace("URL_OF_SERVER", repr(live.url)) + script + SUBMIT
    command = [NODE, "--input-type=module", "-e", program]
    expected = live.complete("tiny", max_tokens=6).json()["choices"][0]["text"]
    with live.paused():
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        until(lambda: live.num_open == 2)
        body = {"model": "tiny", "prompt": "Once", "max_tokens": 1, "stream": True}
        with live.http.stream("POST", "/v1/completions", json=body) as later:
            lines = later.iter_lines()
            assert [next(lines) for _ in range(6)] == [": ping", ""] * 3  # the page has had some
    shown, _ = process.communicate(timeout=30)
    assert json.loads(shown) == {"who": "tiny", "answer": f"Once{expected}"}
