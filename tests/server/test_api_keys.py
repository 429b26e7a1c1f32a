"""A tenant has a name and its keys come and go: what it stores stays its own."""

import hashlib
from collections.abc import Callable

import httpx2
import pytest

from live import Live
from server.api_keys import ApiKey, key_of, read_keys
from server.settings import BadSetting, read_settings

LINES = b'{"prompt": "a", "completion": "b"}\n' * 10


def hash_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()[:16]


def tenant_of(keys: list[ApiKey], sent: bytes) -> str | None:
    found = key_of(keys, sent)
    return found and found.tenant


@pytest.mark.parametrize(
    ("given", "sent", "tenant"),
    [
        ("alice=one", "one", "alice"),
        ("alice=one", "alice=one", "alice"),  # a key of that shape from before there were names
        ("alice=a=b==", "a=b==", "alice"),
        ("alice@x.org=one", "one", "alice@x.org"),
        ("one", "one", hash_of("one")),
        ("Zm9v==", "Zm9v==", hash_of("Zm9v==")),
        ("Zm9v=", "Zm9v=", hash_of("Zm9v=")),
        ("=one", "=one", hash_of("=one")),
        ("a b=one", "a b=one", hash_of("a b=one")),
    ],
)
def test_a_key_stands_for_its_name_or_else_for_its_hash(given: str, sent: str, tenant: str) -> None:
    keys = read_keys(["other=zzz", given])
    assert tenant_of(keys, sent.encode()) == tenant
    assert keys[1].is_named == (tenant != hash_of(sent))
    for wrong in (b"", b"alice", b"ONE", sent.encode() + b"x", given.partition("=")[0].encode()):
        assert tenant_of(keys, wrong) in (None, hash_of("one") if wrong == b"one" else None)


def test_one_secret_for_two_tenants_is_refused_without_showing_it() -> None:
    with pytest.raises(BadSetting, match="two tenants, alice and bob") as caught:
        read_settings(base="x", api_keys="alice=secret-1,bob=secret-1")
    assert "secret-1" not in str(caught.value)
    assert read_settings(base="x", api_keys="alice=1,alice=2,alice=1")


def store_all(server: Live, key: str) -> tuple[str, str]:
    """Upload a file and file a job with a key; return their ids."""
    headers = {"Authorization": f"Bearer {key}"}
    form, file = {"purpose": "fine-tune"}, {"file": ("a.jsonl", LINES)}
    id_ = server.http.post("/v1/files", data=form, files=file, headers=headers).json()["id"]
    body = {"model": "tiny", "training_file": id_}
    job = server.http.post("/v1/fine_tuning/jobs", json=body, headers=headers)
    assert job.status_code == 200, job.text
    return id_, job.json()["id"]


def seen_by(server: Live, key: str) -> tuple[set[str], set[str]] | int:
    """Return the files and jobs that a key shows, or the status with which it is refused."""
    http, headers = server.http, {"Authorization": f"Bearer {key}"}
    answers = [http.get(path, headers=headers) for path in ("/v1/files", "/v1/fine_tuning/jobs")]
    if answers[0].status_code != 200:
        return answers[0].status_code
    files, jobs = ({each["id"] for each in answer.json()["data"]} for answer in answers)
    for place in [f"/v1/files/{id_}/content" for id_ in files]:
        assert http.get(place, headers=headers).status_code == 200
    for place in [f"/v1/fine_tuning/jobs/{id_}" for id_ in jobs]:
        assert http.get(place, headers=headers).status_code == 200
    return files, jobs


def test_a_rotated_key_shows_the_same_files_and_jobs(
    serve: Callable[..., Live], tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = tmp_path_factory.mktemp("rotation")
    first = serve(data=data, api_keys=("alice=old", "bob=other"))
    file, job = store_all(first, "old")
    both = serve(data=data, api_keys=("alice=old", "alice=new", "bob=other"))
    assert seen_by(both, "old") == seen_by(both, "new") == ({file}, {job})
    assert seen_by(both, "other") == (set(), set())
    last = serve(data=data, api_keys=("alice=new", "bob=other"))
    assert seen_by(last, "new") == ({file}, {job})
    assert seen_by(last, "old") == 401
    assert seen_by(last, "alice") == 401


def test_what_a_nameless_key_stored_is_handed_to_a_name_while_servers_run(
    serve: Callable[..., Live], tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = tmp_path_factory.mktemp("handing-over")
    before = serve(data=data, api_keys=("secret",))
    file, job = store_all(before, "secret")
    after = serve(data=data, api_keys=("alice=secret", "alice=new"))
    assert seen_by(after, "new") == (set(), set())

    after.service.registry.tenants.rename(hash_of("secret"), "alice")

    assert seen_by(after, "new") == seen_by(after, "secret") == ({file}, {job})
    cancelled = after.http.post(
        f"/v1/fine_tuning/jobs/{job}/cancel", headers={"Authorization": "Bearer new"}
    )
    assert cancelled.status_code == 200
    deleted = after.http.delete(f"/v1/files/{file}", headers={"Authorization": "Bearer new"})
    assert deleted.status_code == 200


def test_a_server_without_keys_asks_for_none_and_believes_none(live: Live) -> None:
    answer: httpx2.Response = live.http.get("/v1/files", headers={"Authorization": "Bearer x"})
    assert answer.status_code == 200
