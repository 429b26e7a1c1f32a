"""Makes overtone_client/_sync of overtone_client/_async: `./run reference` runs it.

What awaits is written once, and the client without `await` is the same text without it. With
`--check` nothing is written, and the exit code is 1 where a file is not what it would be.
"""

import re
import subprocess
import sys
from pathlib import Path

CLIENT = Path(__file__).parent.parent / "client" / "overtone_client"
SOURCE, MADE = CLIENT / "_async", CLIENT / "_sync"
NOTE = "# Made of _async/{name} by `./run reference`: change that file.\n"
PACKAGE = '"""`_async` without `await`, made of it by `./run reference`: do not edit."""\n'

#: What is awaited -> what is called; in this order.
WORDS = (
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\bAsyncGenerator\[(\w+), None\]", r"Generator[\1, None, None]"),
    (r"\bAsync([A-Z]\w+)", r"\1"),
    (r"\basync_pause\b", "pause"),
    (r"__aenter__", "__enter__"),
    (r"__aexit__", "__exit__"),
    (r"\baclosing\b", "closing"),
    (r"\.aclose\(", ".close("),
    (r"\.aread\(", ".read("),
    (r"\bStopAsyncIteration\b", "StopIteration"),
)

#: Imports in their order, and `yield from` and `list` where a loop was needed to await.
FIXES = ["check", "--select=I,UP028,C416", "--fix", "--unsafe-fixes"]


def made(name: str) -> str:
    """Return what `_sync` should hold under a name."""
    if name == "__init__.py":
        return PACKAGE
    text = (SOURCE / name).read_text()
    for pattern, replacement in WORDS:
        text = re.sub(pattern, replacement, text)
    for arguments in (FIXES, ["format"]):
        path = f"--stdin-filename={MADE / name}"
        command = [sys.executable, "-m", "ruff", *arguments, "--quiet", path, "-"]
        done = subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True, check=True)
        text = done.stdout
    return NOTE.format(name=name) + text


def stale() -> list[str]:
    """Return the names of the files that are missing, old, or made of nothing."""
    names = {path.name for path in SOURCE.glob("*.py")}
    extra = {path.name for path in MADE.glob("*.py")} - names
    old = {n for n in names if not (MADE / n).exists() or (MADE / n).read_text() != made(n)}
    return sorted(old | extra)


def main() -> None:
    """Write the files, or say which would change."""
    if "--check" in sys.argv[1:]:
        names = stale()
        if names:
            sys.exit(f"not as made of _async: {', '.join(names)}; ./run reference makes them")
        return
    texts = {
        path.name: made(path.name) for path in SOURCE.glob("*.py")
    }  # all, or nothing is changed
    MADE.mkdir(exist_ok=True)
    for path in MADE.glob("*.py"):
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        (MADE / name).write_text(text)


if __name__ == "__main__":
    main()
