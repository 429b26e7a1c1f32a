"""An uploaded file that can be seen is whole, and stays while a job needs it."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from jobs_made import fence_of, files_in, run, spec_for, upload
from registry.errors import (
    CorruptRecord,
    FileNotFound,
    InvalidArgument,
    JobConflict,
    RegistryUnavailable,
)
from registry.files import Files
from registry.jobs.claims import Claims
from registry.jobs.jobs import Jobs
from registry.redis import keys

LATER = 10_000_000_000.0
NOBODY = "file-" + "0" * 24


@pytest.fixture
def files(client, tmp_path):
    return files_in(client, tmp_path)


def test_an_uploaded_file_is_there_with_its_facts(files):
    content = b'{"text": "\xc3\xa9"}\n' * 1000
    record = upload(files, content, filename="ü.jsonl", facts={"examples": 1000}, now=7.5)

    assert files.get(record.id) == record
    assert (record.filename, record.purpose, record.created_at) == ("ü.jsonl", "fine-tune", 7.5)
    assert (record.size_bytes, record.facts) == (len(content), {"examples": 1000})
    assert record.digest == "sha256:" + hashlib.sha256(content).hexdigest()
    assert files.open(record.id).read_bytes() == content
    assert files.list(10) == [record]


@pytest.mark.parametrize("id_", [NOBODY, "../blobs", "file-1/../../x", "", "file-" + "A" * 24])
def test_what_is_no_file_is_not_looked_for(files, id_):
    for ask in (files.get, files.open, files.delete, lambda id_: files.list(1, after=id_ or "x")):
        with pytest.raises(FileNotFound):
            ask(id_)


@pytest.mark.parametrize(
    "bad",
    [
        {"filename": ""},
        {"filename": "a\nb"},
        {"filename": "x" * 256},
        {"purpose": ""},
        {"facts": {"a": float("nan")}},
        {"facts": {"a": object()}},
        {"facts": {"a": "x" * 70_000}},
    ],
)
def test_words_that_cannot_be_stored_leave_no_file(files, bad):
    with pytest.raises(InvalidArgument):
        upload(files, **bad)

    assert files.list(10) == []


def test_an_upload_that_nobody_finished_is_seen_by_nobody(files):
    files.begin().write_bytes(b"half")

    assert files.list(10) == []
    assert list(files.all()) == []
    assert len(list(files.unfinished())) == 1


def test_a_file_without_its_record_is_listed_and_removed_when_told_to(client, files, tmp_path):
    record = upload(files)
    stray = tmp_path / "files" / NOBODY
    stray.write_bytes(b"its record was never written")
    assert {id_ for id_, _ in files.all()} == {record.id, NOBODY}

    assert not files.remove(NOBODY, lambda id_: True, LATER)
    assert not files.remove(NOBODY, lambda id_: False, 0.0)  # it is not old enough
    assert files.remove(NOBODY, lambda id_: False, LATER)
    assert not files.remove(NOBODY, lambda id_: False, LATER)
    assert dict(files.all()) == {record.id: files.open(record.id)}


def test_a_removal_waits_for_an_upload_that_gets_its_record(files, monkeypatch, tmp_path):
    written, go_on, asked = Event(), Event(), []
    run_script = files._scripts.run

    def slowly(*args):
        written.set()
        assert go_on.wait(10)
        return run_script(*args)

    def is_known(id_):
        asked.append(id_)
        return files.get(id_).id == id_

    monkeypatch.setattr(files._scripts, "run", slowly)
    with ThreadPoolExecutor(2) as pool:
        uploading = pool.submit(upload, files)
        assert written.wait(10)
        (path,) = (tmp_path / "files").glob("file-*")
        removal = pool.submit(files.remove, path.name, is_known, LATER)
        assert not asked
        go_on.set()
        record = uploading.result(10)
        assert removal.result(10) is False

    assert asked == [record.id]
    assert files.open(record.id).exists()


def test_bytes_stay_where_it_is_not_known_whether_the_record_was_written(files, monkeypatch):
    written = files._scripts.run

    def lost(*args):
        written(*args)
        raise RegistryUnavailable("the answer was lost")

    with monkeypatch.context() as broken:
        broken.setattr(files._scripts, "run", lost)
        with pytest.raises(RegistryUnavailable):
            upload(files, b"content")

    (record,) = files.list(10)
    assert files.open(record.id).read_bytes() == b"content"


def test_a_store_that_cannot_be_written_leaves_no_record(client, tmp_path, monkeypatch):
    files = Files(client, tmp_path / "files")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="space"):
        upload(files)

    assert files.list(10) == []


def test_a_deleted_file_is_gone_with_its_bytes(files):
    record = upload(files)
    path = files.open(record.id)

    files.delete(record.id)

    assert not path.exists()
    assert files.list(10) == []
    for ask in (files.get, files.open, files.delete):
        with pytest.raises(FileNotFound):
            ask(record.id)


@pytest.mark.parametrize("ending", ["cancelled", "failed", "succeeded", "refused"])
def test_a_file_stays_while_a_job_needs_it(client, files, ending):
    jobs, claims = Jobs(client), Claims(client)
    record, held_out = upload(files), upload(files)
    spec = spec_for(record, validation_file=held_out.id)
    jobs.create(spec, now=1.0)
    for each in (record, held_out):
        with pytest.raises(JobConflict, match=spec.id):
            files.delete(each.id)

    end(jobs, claims, spec.id, ending)

    files.delete(record.id)
    files.delete(held_out.id)
    assert files.list(10) == []
    assert not client.keys(keys.FILE_USERS + "*")


def end(jobs, claims, id_, ending):
    from registry.jobs.record import JobError

    fault = JobError("x", "y")
    if ending == "refused":
        jobs.refuse(id_, fault, now=2.0)
        return
    jobs.queue(id_, now=2.0)
    fence = fence_of(run(claims))
    if ending == "cancelled":
        jobs.cancel(id_, now=2.0)
    elif ending == "failed":
        claims.fail(fence, fault, now=2.0)
    else:
        claims.finish(fence, {}, now=2.0)


def test_files_are_listed_newest_first_page_by_page_and_by_tenant(files):
    mine = [upload(files, now=float(i)) for i in range(5)]
    upload(files, created_by="you", now=9.0)

    assert len(files.list(100)) == 6
    assert files.list(3, created_by="me") == mine[:1:-1]
    assert files.list(3, after=mine[2].id, created_by="me") == [mine[1], mine[0]]
    assert files.list(3, created_by="nobody") == []
    with pytest.raises(InvalidArgument):
        files.list(0)


def test_rubbish_in_a_files_record_is_named(client, files):
    client.hset(keys.FILES, NOBODY, "[]")

    with pytest.raises(CorruptRecord, match=NOBODY):
        files.get(NOBODY)
