"""Training files over REST: checked when they come, seen by nobody else, gone when deleted."""

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from live import Live, error_of
from server.api.routes import files as routes
from training_parts import TEXTS, file_id, jsonl, new_job, post_file


@pytest.fixture(scope="module")
def server(serve_all: Callable[..., Live]) -> Live:
    return serve_all(max_training_file_bytes=1 << 20, max_body_bytes=64 << 10)


def stored(server: Live) -> set[Path]:
    folder = server.settings.data / "blobs" / "files"
    return {path for path in folder.rglob("*") if path.is_file()}


def test_an_uploaded_file_is_checked_and_comes_back_as_it_was(server: Live) -> None:
    content = jsonl(*TEXTS)
    answer = post_file(server, content, "poems.jsonl")
    assert answer.status_code == 200
    file = answer.json()
    assert file["object"] == "file"
    assert (file["filename"], file["bytes"], file["purpose"]) == (
        "poems.jsonl",
        len(content),
        "fine-tune",
    )
    assert (file["status"], file["status_details"]) == ("processed", None)
    assert file["overtone"]["num_examples"] == len(TEXTS)
    assert file["overtone"]["kind"] == "jsonl"
    assert server.http.get(f"/v1/files/{file['id']}").json() == file
    found = server.http.get(f"/v1/files/{file['id']}/content")
    assert found.content == content
    assert 'filename="poems.jsonl"' in found.headers["content-disposition"]


def test_a_file_with_faults_is_kept_and_says_which_lines(server: Live) -> None:
    file = post_file(server, b'{"text": "a"}\nnope\n{"text": 1}\n').json()
    assert file["status"] == "error"
    assert "line 2: is not JSON" in file["status_details"]
    assert "line 3: has no text under `text`" in file["status_details"]
    assert [fault["line"] for fault in file["overtone"]["faults"]] == [2, 3]


def test_a_path_in_a_filename_is_only_a_name(server: Live) -> None:
    file = post_file(server, name="../../etc\\passwd").json()
    assert file["filename"] == "passwd"
    assert {path.parent.name for path in stored(server)} == {"files"}


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"data": {"purpose": "vision"}}, "purpose", "invalid_request"),
        ({"data": {"purpose": "batch_output"}}, "purpose", "invalid_request"),
        (
            {"data": {"expires_after[anchor]": "x"}},
            "expires_after[anchor]",
            "unsupported_parameter",
        ),
    ],
)
def test_a_field_that_is_not_served_is_named(
    server: Live, changes: dict[str, Any], param: str, code: str
) -> None:
    before = stored(server)
    answer = post_file(server, **changes)
    assert answer.status_code == 400
    assert (error_of(answer)["param"], error_of(answer)["code"]) == (param, code)
    assert stored(server) == before


def test_an_upload_without_a_file_is_refused(server: Live) -> None:
    answer = server.http.post("/v1/files", data={"purpose": "fine-tune", "file": "text"})
    assert answer.status_code == 400
    assert error_of(answer)["param"] == "file"


def test_a_file_over_the_limit_is_refused_and_leaves_nothing(server: Live) -> None:
    before = stored(server)
    answer = post_file(server, b"x" * (3 << 20))
    assert answer.status_code == 413
    assert error_of(answer)["code"] == "too_large"
    assert stored(server) == before


def test_a_training_file_may_be_larger_than_any_other_request(server: Live) -> None:
    answer = post_file(server, jsonl(*[{"text": "a" * 100}] * 8000))
    assert answer.json()["overtone"]["num_examples"] == 8000


def test_a_full_disk_is_said_and_nothing_is_kept(
    server: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stored(server)

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(routes.shutil, "copyfileobj", full)
        answer = post_file(server)
    assert answer.status_code == 507
    assert error_of(answer)["code"] == "storage_full"
    assert stored(server) == before
    usage = shutil.disk_usage("/")._replace(free=1 << 20)
    monkeypatch.setattr("registry.adapters.blobs.shutil.disk_usage", lambda path: usage)
    assert error_of(post_file(server))["code"] == "storage_full"


def test_files_are_listed_page_by_page_the_newest_first(server: Live) -> None:
    made = [file_id(server) for _ in range(3)]
    first = server.http.get("/v1/files", params={"limit": 2}).json()
    assert [file["id"] for file in first["data"]] == made[:0:-1]
    assert first["has_more"]
    rest = server.http.get("/v1/files", params={"limit": 2, "after": made[1]}).json()
    assert rest["data"][0]["id"] == made[0]
    assert server.http.get("/v1/files", params={"purpose": "vision"}).json()["data"] == []
    assert server.http.get("/v1/files", params={"order": "asc"}).status_code == 400
    assert server.http.get("/v1/files", params={"after": f"file-{'0' * 24}"}).status_code == 404


def test_a_deleted_file_is_gone(server: Live) -> None:
    id_ = file_id(server)
    answer = server.http.delete(f"/v1/files/{id_}")
    assert answer.json() == {"id": id_, "object": "file", "deleted": True}
    for path in (f"/v1/files/{id_}", f"/v1/files/{id_}/content"):
        assert server.http.get(path).status_code == 404
    assert server.http.delete(f"/v1/files/{id_}").status_code == 404
    assert id_ not in {path.name for path in stored(server)}


def test_a_file_that_a_job_still_reads_is_not_deleted(server: Live) -> None:
    id_ = file_id(server)
    job = new_job(server, id_)
    answer = server.http.delete(f"/v1/files/{id_}")
    assert answer.status_code == 400
    assert job["id"] in error_of(answer)["message"]
    assert server.http.get(f"/v1/files/{id_}/content").status_code == 200
    server.http.post(f"/v1/fine_tuning/jobs/{job['id']}/cancel")
    assert server.http.delete(f"/v1/files/{id_}").status_code == 200


@pytest.mark.parametrize("id_", ["file-1", "..%2f..%2fetc", f"file-{'0' * 24}"])
def test_an_id_that_names_nothing_is_404(server: Live, id_: str) -> None:
    for path in (f"/v1/files/{id_}", f"/v1/files/{id_}/content"):
        assert server.http.get(path).status_code == 404
    assert server.http.delete(f"/v1/files/{id_}").status_code == 404


def test_what_one_tenant_uploads_no_other_sees(serve: Callable[..., Live]) -> None:
    server = serve(tenant_header="X-Tenant")
    mine, theirs = {"X-Tenant": "a"}, {"X-Tenant": "b"}
    id_ = file_id(server, headers=mine)
    assert server.http.get("/v1/files", headers=theirs).json()["data"] == []
    for act in (server.http.get, server.http.delete):
        assert act(f"/v1/files/{id_}", headers=theirs).status_code == 404
    assert server.http.get(f"/v1/files/{id_}/content", headers=theirs).status_code == 404
    body = {"model": "tiny", "training_file": id_}
    refused = server.http.post("/v1/fine_tuning/jobs", json=body, headers=theirs)
    assert refused.status_code == 404
    assert server.http.get(f"/v1/files/{id_}", headers=mine).status_code == 200
