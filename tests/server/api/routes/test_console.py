"""The console's files: what is sent, with which headers, to which callers."""

import gzip
from collections.abc import Callable

import pytest

from live import Live
from server.api.console_files import FOLDER, console_names

MOST_BYTES = 300_000
NAMES = sorted(console_names())


def test_all_files_together_are_small() -> None:
    sizes = {path: path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < MOST_BYTES
    assert len(NAMES) >= len(sizes) - 1  # all but vendor/README.md are sent


@pytest.mark.parametrize("name", ["", *(f"console/{name}" for name in NAMES)])
def test_every_file_is_sent_with_a_policy_and_asked_for_again_by_its_etag(
    live: Live, name: str
) -> None:
    answer = live.http.get(f"/{name}", headers={"Accept-Encoding": "gzip"})
    assert answer.status_code == 200
    assert answer.content == (FOLDER / (name.removeprefix("console/") or "index.html")).read_bytes()
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self';" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-cache"
    known = {"If-None-Match": f'"other", W/{answer.headers["etag"]}'}
    again = live.http.get(f"/{name}", headers=known)
    assert (again.status_code, again.content) == (304, b"")
    assert live.http.get(f"/{name}", headers={"If-None-Match": '"other"'}).status_code == 200


def test_large_files_are_compressed_for_those_that_can_unpack_them(live: Live) -> None:
    path = "/console/vendor/preact.js"
    with live.http.stream("GET", path, headers={"Accept-Encoding": "gzip"}) as answer:
        packed = b"".join(answer.iter_raw())
    assert answer.headers["content-encoding"] == "gzip"
    plain = live.http.get(path, headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert gzip.decompress(packed) == plain.content
    assert len(packed) < len(plain.content) / 2


@pytest.mark.parametrize(
    "path", ["nothing.js", "../app.py", "%2e%2e/app.py", "vendor/README.md", "pages", ""]
)
def test_nothing_else_is_sent(live: Live, path: str) -> None:
    assert live.http.get(f"/console/{path}").status_code == 404


def test_the_page_needs_no_key_and_what_it_reads_does(serve: Callable[..., Live]) -> None:
    live = serve(api_keys="alice=secret", calibration_s=0)
    assert live.http.get("/").status_code == 200
    assert {live.http.get(f"/console/{name}").status_code for name in NAMES} == {200}
    assert live.http.get("/console/nothing.js").status_code == 401
    assert live.http.get("/v1/models").status_code == 401
