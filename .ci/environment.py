"""Fills .venv: torch in the build for this machine, then the project; says what is downloaded.

    .venv/bin/python .ci/environment.py run     what serving and training need
    .venv/bin/python .ci/environment.py dev     with what tests and benchmarks need

Only the standard library, because it runs before anything is installed.

    TORCH_INDEX_URL   index with the build of torch that is wanted
    TORCH_BACKEND     else what uv calls one: auto (by the machine), cpu, cu128 …
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOG = ROOT / ".venv" / "log"
PROJECT = {"run": ["-e", "./client", "-e", ".[gguf]"], "dev": ["-e", "./client", "-e", ".[dev]"]}
CONSTRAINTS = ["-c", "constraints.txt"]
#: pip's version from which on `--progress-bar raw` is there.
RAW_PROGRESS = (24, 1)
#: For an index to answer; one that does not is given up.
INDEX_S = 5
#: What is smaller is not worth a line.
SHOWN_BYTES = 10_000_000
TICK_S = 10
UNITS = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "bytes": 1}
#: In pip's own words -> what it means, and what to do.
FAULTS = {
    r"No space left on device": "the disk is full: make room, then run this again",
    r"CERTIFICATE_VERIFY_FAILED|SSLError": "the package index's certificate is not trusted here: "
    "set PIP_CERT to the file with your network's certificates",
    r"Failed to establish|NameResolutionError|Name or service not known|Temporary failure in name|"
    r"Network is unreachable|Connection refused|ConnectTimeout|Read timed out|ProxyError|"
    r"Could not fetch URL|from versions: none": "the package index cannot be reached: check the "
    "network; behind a proxy set HTTPS_PROXY, for a mirror of your own PIP_INDEX_URL",
    r"No matching distribution|Could not find a version": "a package has no release for this "
    f"Python ({sys.version.split()[0]}) on this system: choose another with PYTHON=python3.12 …",
}


class Failed(Exception):
    """pip or uv could not install something; the message says what to do."""


def main(level: str) -> None:
    """Fill the environment.

    Raises:
        Failed: something cannot be installed.
    """
    os.chdir(ROOT)
    LOG.write_text("")
    progress = Progress()
    upgrade_pip(progress)
    install_torch(progress)
    say("the project and what it needs")
    pip([*CONSTRAINTS, *PROJECT[level], *(tested_triton() if level == "dev" else [])], progress)
    say(f"{progress.downloaded / 1e6:,.0f} MB were downloaded by pip")


def upgrade_pip(progress: "Progress") -> None:
    """Have a pip that can say how far a download is, which the one of Python 3.11 cannot.

    Raises:
        Failed: the index cannot be reached; pip itself takes the old one for good enough then.
    """
    wanted = f"pip>={'.'.join(map(str, RAW_PROGRESS))}"
    said = pip(["--quiet", "--retries", "1", "--upgrade", wanted], progress, bar="off")
    shown = subprocess.run(
        [sys.executable, "-m", "pip", "--version"], capture_output=True, text=True
    )
    match = re.match(r"pip (\d+)\.(\d+)", shown.stdout)
    if match is None or tuple(map(int, match.groups())) < RAW_PROGRESS:
        raise Failed(why(said, wanted))


def install_torch(progress: "Progress") -> None:
    """Install torch unless it is there: CUDA's build only where a GPU of NVIDIA's is."""
    if subprocess.run([sys.executable, "-c", "import torch"], capture_output=True).returncode == 0:
        return
    url = os.environ.get("TORCH_INDEX_URL")
    if url:
        say("PyTorch from TORCH_INDEX_URL")
        pip([*CONSTRAINTS, "--index-url", url, "torch"], progress)
    elif not with_uv(os.environ.get("TORCH_BACKEND", "auto"), progress):
        say(f"PyTorch by pip (TORCH_INDEX_URL names another index): {announced()}")
        pip([*CONSTRAINTS, "torch"], progress)


def tested_triton() -> list[str]:
    """Return the version of Triton that is tested; torch's builds for a GPU bring their own."""
    code = "import torch; raise SystemExit(torch.version.cuda is not None)"
    has_none = subprocess.run([sys.executable, "-c", code]).returncode == 0
    return ["triton==3.6.0"] if has_none and sys.platform == "linux" else []


def with_uv(backend: str, progress: "Progress") -> bool:
    """Install torch by uv, which knows where its builds are; return whether that could be done."""
    if sys.platform != "linux":
        return False  # elsewhere pip's own index has the build that is wanted
    gpu = "an NVIDIA GPU" if has_nvidia_gpu() else "no NVIDIA GPU"
    say(f"PyTorch: this machine has {gpu}; uv is asked for the build that fits ({backend})")
    uv = own_uv(progress)
    install = [uv, "pip", "install", "--python", sys.executable, "--torch-backend", backend]
    # One page of the index: a network that does not let us there is found out quickly.
    ask = [*install, "--quiet", "--dry-run", "--no-deps", *CONSTRAINTS, "torch"]
    environment = {**os.environ, "UV_HTTP_TIMEOUT": str(INDEX_S), "UV_HTTP_RETRIES": "0"}
    try:
        asked = subprocess.run(ask, env=environment, capture_output=True, timeout=3 * INDEX_S)
        answers = asked.returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        answers = False
    if answers and subprocess.run([*install, *CONSTRAINTS, "torch"]).returncode == 0:
        return True
    say("the index with these builds cannot be reached; looking at what pip's own has")
    return False


def own_uv(progress: "Progress") -> str:
    """Return uv: the machine's own, or one that is installed into the environment."""
    found = shutil.which("uv")
    if found is None:
        pip(["uv"], progress)
        found = str(Path(sys.executable).with_name("uv"))
    return found


def has_nvidia_gpu() -> bool:
    """Return whether the driver is there."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def announced() -> str:
    """Return how many packages pip would install for torch, and how many bytes it downloads."""
    report = ["--quiet", "--dry-run", "--report", "-", *CONSTRAINTS, "torch"]
    command = [sys.executable, "-m", "pip", "install", *report]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        return "its size cannot be told"  # and why, pip says when it installs
    urls = [each["download_info"]["url"] for each in json.loads(done.stdout)["install"]]
    far = [url for url in urls if not url.startswith("file:")]
    with ThreadPoolExecutor(16) as pool:
        total = sum(pool.map(size_of, far))
    cuda = sum("/nvidia" in url or "nvidia_" in url for url in urls)
    along = f", {cuda} of them CUDA's libraries" if cuda else ""
    return f"{len(urls)} packages{along}; {total / 1e6:,.0f} MB to download, unless pip has them"


def size_of(url: str) -> int:
    """Return the bytes behind a URL; 0 if that cannot be told."""
    try:
        request = urllib.request.Request(url, method="HEAD")
        with urllib.request.urlopen(request, timeout=INDEX_S) as answer:
            return int(answer.headers.get("Content-Length", 0))
    except (OSError, ValueError):
        return 0


class Progress:
    """What a person sees of pip: each large download, how far it is, and what is unpacked."""

    def __init__(self) -> None:
        self.downloaded = 0.0
        self._name, self._size, self._told = "", 0.0, time.monotonic()

    def take(self, line: str) -> None:
        """Look at one line of pip's."""
        if match := re.match(r"\s*Downloading (\S+) \(([\d.]+) (\w+)\)", line):
            path, number, unit = match.groups()
            if not path.endswith(".metadata"):
                self._begin(path, float(number) * UNITS.get(unit, 1))
        elif match := re.match(r"Progress (\d+) of (\d+)", line):
            self._go_on(int(match[1]))
        elif line.startswith("Installing collected packages:"):
            say(f"  unpacking: {line.count(',') + 1}")

    def _begin(self, path: str, size: float) -> None:
        self.downloaded += size
        self._name, self._size = path.rpartition("/")[2].partition("-")[0], size
        self._told = time.monotonic()
        if size >= SHOWN_BYTES:
            say(f"  {self._name}: {size / 1e6:,.0f} MB")

    def _go_on(self, done: int) -> None:
        now = time.monotonic()
        if self._size >= SHOWN_BYTES and now - self._told >= TICK_S:
            self._told = now
            say(f"  {self._name}: {done / 1e6:,.0f} of {self._size / 1e6:,.0f} MB")


def pip(words: list[str], progress: Progress, bar: str = "raw") -> str:
    """Run `pip install`; return what it said.

    Raises:
        Failed: it fails; the message says why, and what to do.
    """
    command = [sys.executable, "-m", "pip", "install", "--progress-bar", bar, *words]
    said: list[str] = []
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with LOG.open("a") as log, subprocess.Popen(command, **pipe) as process:
        for line in process.stdout:
            progress.take(line)
            if not line.startswith("Progress "):
                log.write(line)
                said.append(line)
    if process.returncode != 0:
        raise Failed(why("".join(said), words[-1]))
    return "".join(said)


def why(said: str, what: str) -> str:
    """Return what pip's words mean, and what to do."""
    meant = [words for pattern, words in FAULTS.items() if re.search(pattern, said)]
    tail = "\n".join(said.splitlines()[-5:])
    step = meant[0] if meant else "its last words say why"
    return f"{tail}\npip could not install {what}: {step} (all that it said: {LOG})"


def say(text: str) -> None:
    """Write a line for the person who waits."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except Failed as failure:
        sys.exit(str(failure))
    except KeyboardInterrupt:
        sys.exit("interrupted; the next start goes on from here")
