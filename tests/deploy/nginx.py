"""Debian's nginx with the shipped configuration, before servers of a test."""

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from program import free_port
from waiting import until

SHIPPED = Path(__file__).parents[2] / "deploy" / "nginx"
MODULE = Path("/usr/lib/nginx/modules/ngx_http_js_module.so")


@contextmanager
def running_nginx(servers: Sequence[str], folder: Path) -> Iterator[str]:
    """Run it until the block ends; give its URL.

    Args:
        servers: host and port of each.
        folder: for its files.
    """
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    if program is None or not MODULE.exists():
        pytest.skip("needs Debian's nginx and libnginx-mod-http-js")
    url = f"http://127.0.0.1:{free_port()}"
    command = [program, "-p", str(folder), "-c", str(config_for(url, servers, folder))]
    process = subprocess.Popen([*command, "-g", "daemon off;"])
    try:
        until(lambda: answers(url, process), 10)
        yield url
    finally:
        process.terminate()
        process.wait(10)


def answers(url: str, process: "subprocess.Popen[bytes]") -> bool:
    assert process.poll() is None, "nginx does not take the configuration"
    try:
        httpx2.get(url, timeout=5, trust_env=False)
    except httpx2.TransportError:
        return False
    return True


def config_for(url: str, servers: Sequence[str], folder: Path) -> Path:
    """Return a configuration that includes the shipped one with other addresses."""
    lines = "".join(f"    server {server} max_fails=0;\n" for server in servers)
    shipped = (SHIPPED / "overtone.conf").read_text()
    shipped = re.sub(r"(?m)(^    server \S+ max_fails=0;\n)+", lines, shipped)
    shipped = shipped.replace("listen 80;", f"listen {url.removeprefix('http://')};")
    shipped = shipped.replace("/etc/nginx/njs", str(SHIPPED))
    assert all(server in shipped for server in servers)
    assert "listen 80" not in shipped
    (folder / "overtone.conf").write_text(shipped)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"    {kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    path = folder / "nginx.conf"
    path.write_text(
        f"load_module {MODULE};\npid {folder}/nginx.pid;\nerror_log {folder}/error.log info;\n"
        "events { worker_connections 1024; }\n"
        f"http {{\n    access_log off;\n{paths}    include {folder}/overtone.conf;\n}}\n"
    )
    return path
