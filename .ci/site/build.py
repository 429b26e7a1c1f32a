"""Builds the site into site/ and checks it: `./run docs [--serve [PORT]]`.

Runs with the environment of requirements.txt. Any warning of Sphinx's fails it, then links.py reads
what was written as a browser would.
"""

import argparse
import shutil
import subprocess
import sys
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from links import faults

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PORT = 8008


def main() -> int:
    """Build, check, and show it if that is asked for; return the exit code."""
    parser = argparse.ArgumentParser(prog="./run docs")
    parser.add_argument("--serve", nargs="?", type=int, const=PORT, metavar="PORT")
    parser.add_argument("--out", type=Path, default=ROOT / "site")
    given = parser.parse_args()
    started = time.monotonic()
    if code := build(given.out):
        return code
    found = faults(given.out)
    for fault in found:
        print(fault, file=sys.stderr)
    pages = len(list(given.out.rglob("*.html")))
    print(f"{pages} pages in {given.out}: {len(found)} faults, {time.monotonic() - started:.0f} s")
    if found:
        return 1
    if given.serve is not None:
        serve(given.out, given.serve)
    return 0


def build(out: Path) -> int:
    """Write the site to an empty folder; return Sphinx's exit code, which a warning makes 1."""
    if out.exists() and any(out.iterdir()) and not (out / ".buildinfo").exists():
        print(f"{out} holds something else than a site: give another --out", file=sys.stderr)
        return 2
    if out.exists():
        shutil.rmtree(out)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    command += ["-c", str(HERE), "-d", str(out / ".doctrees"), str(ROOT), str(out)]
    code = subprocess.run(command).returncode
    for left in (out / ".doctrees", out / "_sources"):
        shutil.rmtree(left, ignore_errors=True)
    return code


def serve(out: Path, port: int) -> None:
    """Show the site on this machine until Ctrl-C."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(out))
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        print(f"http://127.0.0.1:{port} until Ctrl-C")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    sys.exit(main())
