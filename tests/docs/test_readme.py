"""README's commands work in their order, and the demo is what README says."""

import re

import pytest

from .conftest import Demo
from .pages import blocks

README = [block for block in blocks() if block.page == "README.md" and block.language == "sh"]


def test_readme_begins_with_the_demo() -> None:
    assert README[0].text.strip() == "./run demo"


@pytest.mark.timeout(240)
def test_every_other_command_of_readme_works_while_the_demo_runs(demo: Demo) -> None:
    outputs = [demo.run(block) for block in README[1:] if block.reason is None]
    assert '"method"' not in outputs[0]
    assert '"adapter":"shouting"' in outputs[0]
    assert "my-adapter" in outputs[1]
    assert "recipes" in outputs[2]


def test_the_demos_own_examples_work(demo: Demo) -> None:
    shown = demo.log.split("Three things to try", 1)[1]
    curl = re.search(r"(curl .*?\n.*?'$)", shown, re.MULTILINE | re.DOTALL)
    program = re.search(r"^ *(\./run overtone .*)$", shown, re.MULTILINE)
    page = re.search(r"(http://\S+) in a browser", shown)
    assert curl
    assert program
    assert page
    assert '"digest":"sha256:' in demo.shell(curl.group(1))
    assert demo.shell(program.group(1)).strip()
    assert "<html" in demo.shell(f"curl -sf {page.group(1)}").lower()


def test_the_demo_shows_that_its_adapters_beat_the_base(demo: Demo) -> None:
    line = r"adapter (\w+) +\d+ kB, held-out loss ([\d.]+), the base alone ([\d.]+)"
    found = re.findall(line, demo.log)
    assert {name for name, *_ in found} == {"legalese", "shouting"}
    assert all(float(loss) < 0.95 * float(base) for _, loss, base in found)
