"""The demo, as README starts it, for all pages' commands."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo_scene import PROGRAM, running_demo

from .pages import ROOT, Block

_DOCUMENTED = "127.0.0.1:8000"
#: A job of README's waits for those that other pages' blocks have filed.
_COMMAND_S = 100


@dataclass(frozen=True)
class Demo:
    """A demo that runs, what it printed, and a folder for the files of commands."""

    port: int
    log: str
    folder: Path

    def run(self, block: Block) -> str:
        """Run a block against this demo as it stands on the page; return what it printed."""
        if block.language == "python":
            return self._run([sys.executable, "-c"], block.text, self.folder)
        return self.shell(block.text, ROOT if "./run" in block.text else self.folder)

    def shell(self, text: str, folder: Path = ROOT) -> str:
        """Run commands, with the environment's program for the one that `./run` would make."""
        text = text.replace("./run overtone", "overtone")
        return self._run(["bash", "-euc"], text, folder)

    def _run(self, shell: list[str], text: str, folder: Path) -> str:
        env = os.environ | {
            "OVERTONE_URL": f"http://127.0.0.1:{self.port}",
            "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}",
            "COLUMNS": "120",
        }
        command = [*shell, text.replace(_DOCUMENTED, f"127.0.0.1:{self.port}")]
        done = subprocess.run(
            command,
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The demo, with its data in a folder of its own, and files for the pages' commands."""
    data, folder = tmp_path_factory.mktemp("demo"), tmp_path_factory.mktemp("files")
    for name, adapter in (("my-adapter", "legalese"), ("another", "shouting")):
        shutil.copytree(ROOT / "trainer/demo/adapters" / adapter, folder / name)
    chat = [{"role": "user", "content": "Rain?"}, {"role": "assistant", "content": "In drops."}]
    (folder / "chats.jsonl").write_text(f"{json.dumps({'messages': chat})}\n" * 16)
    with running_demo(data) as (port, log):
        yield Demo(port, log, folder)
