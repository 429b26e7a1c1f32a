"""docs/api.md is what the OpenAPI document says now."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text()


def test_the_page_is_what_the_command_prints() -> None:
    command = [sys.executable, str(ROOT / ".ci" / "api_reference.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == PAGE, "docs/api.md is not current: ./run reference writes it"


def test_every_link_of_the_page_leads_to_a_heading() -> None:
    anchors = {heading.lower() for heading in re.findall(r"^### (\w+)$", PAGE, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= anchors
