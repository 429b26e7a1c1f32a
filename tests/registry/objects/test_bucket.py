"""A bucket's objects come back as they were put, and its faults are said in words."""

import socket
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from registry.errors import InvalidArgument, RegistryUnusable, StoreUnavailable
from registry.objects.bucket import RETRIES, Bucket, _reason_of
from registry.objects.place import BucketName, store_place
from s3_server import S3Server


@pytest.fixture
def bucket(s3):
    return Bucket(BucketName(s3.bucket(), "some/prefix"))


def test_objects_are_put_whole_read_listed_and_deleted(bucket):
    bucket.put("a/b", b"one")
    bucket.put("a/b", b"other")
    assert bucket.create("c", b"new")
    assert not bucket.create("c", b"newer")

    assert (bucket.get("a/b"), bucket.get("c"), bucket.get("d")) == (b"other", b"new", None)
    found = bucket.head("a/b")
    assert (found.key, found.size_bytes) == ("a/b", 5)
    assert bucket.head("d") is None
    assert [each.key for each in bucket.list("")] == ["a/b", "c"]
    assert [each.key for each in bucket.list("a/")] == ["a/b"]
    bucket.delete("a/b")
    bucket.delete("a/b")
    assert [each.key for each in bucket.list("")] == ["c"]


def test_another_prefix_of_the_bucket_is_another_store(bucket):
    bucket.put("a", b"one")

    other = Bucket(BucketName(bucket.name.bucket, "some"))
    assert other.get("a") is None
    assert list(Bucket(BucketName(bucket.name.bucket, "else")).list("")) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "nothing listens"),
        ({"AWS_ENDPOINT_URL": "http://no-host.invalid"}, "cannot be resolved"),
        ({"AWS_ENDPOINT_URL": "no url"}, "AWS_ENDPOINT_URL is no http"),
    ],
)
def test_an_endpoint_that_cannot_be_reached_is_said(s3, monkeypatch, changes, words):
    for name, value in changes.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(RegistryUnusable, match=words) as caught:
        Bucket(BucketName("bucket-any", "")).check()
    assert "s3://bucket-any" in caught.value.message


def test_a_bucket_that_is_not_there_is_said_at_the_start_and_is_no_missing_object(s3):
    bucket = Bucket(BucketName("bucket-none", ""))

    with pytest.raises(RegistryUnusable, match="no such bucket"):
        bucket.check()
    for ask in (
        lambda: bucket.get("a"),
        lambda: bucket.put("a", b""),
        lambda: list(bucket.list("")),
    ):
        with pytest.raises(StoreUnavailable) as caught:
            ask()
        assert "bucket-none" not in caught.value.message  # callers of the API read it


def test_credentials_that_are_refused_or_missing_are_said(monkeypatch):
    server = S3Server(num_free=1)
    try:
        for name, value in server.variables.items():
            monkeypatch.setenv(name, value)
        bucket = BucketName(server.bucket(), "")
        with pytest.raises(RegistryUnusable, match="AWS_SECRET_ACCESS_KEY"):
            Bucket(bucket).check()
    finally:
        server.close()


#: As AWS answers; moto takes every region.
OTHER_REGION = (
    "<Error><Code>AuthorizationHeaderMalformed</Code><Message>The authorization header is "
    "malformed; the region 'us-east-1' is wrong; expecting 'eu-west-1'</Message></Error>",
    "<Error><Code>PermanentRedirect</Code></Error>",
)


@pytest.mark.parametrize("text", OTHER_REGION)
def test_another_region_is_named(text):
    assert "AWS_REGION" in _reason_of(RuntimeError(text))[0]


@pytest.mark.parametrize(
    "text", ["s3://", "s3://A", "s3://bucket/../x", "s3://bucket/a//x", "gs://bucket", "http://a/b"]
)
def test_what_names_no_bucket_is_refused(text):
    with pytest.raises(InvalidArgument, match="s3://BUCKET"):
        store_place(text, Path())


@pytest.mark.parametrize("text", ["s3://bucket", "s3://bucket/", "s3://bucket/a/b-1"])
def test_a_bucket_and_its_prefix_are_read(text):
    assert str(store_place(text, Path())) == text.rstrip("/")


def test_anything_else_is_a_folder():
    assert store_place("/a/b", Path()) == Path("/a/b")
    assert store_place(None, Path("/c")) == Path("/c")


def test_a_request_that_fails_is_sent_again(s3, monkeypatch):
    """The first connections are cut before anything is answered."""
    bucket = s3.bucket()
    with faltering(s3, num_cut=RETRIES - 1) as (port, cut):
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        Bucket(BucketName(bucket, "")).put("a", b"one")
        assert len(cut) == RETRIES - 1
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
    assert Bucket(BucketName(bucket, "")).get("a") == b"one"


@contextmanager
def faltering(s3, num_cut):
    """A port that cuts so many connections and passes one on to the server."""
    cut = []

    def run(listener):
        while len(cut) < num_cut:
            near, _ = listener.accept()
            near.close()
            cut.append(near)
        near, _ = listener.accept()
        far = socket.create_connection(("127.0.0.1", s3.port))
        with near, far:
            near.settimeout(10)
            far.settimeout(10)
            back = threading.Thread(target=_pass_on, args=(far, near))
            back.start()
            _pass_on(near, far)
            back.join()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=run, args=(listener,))
        thread.start()
        yield listener.getsockname()[1], cut
        thread.join()


def _pass_on(source, target):
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("GET http://127.0.0.1:40389/b in 401.2ms - HTTP error: error sending request", "reached"),
        ("PUT http://127.0.0.1:9000/403 - HTTP error: error sending request", "reached"),
        ("Server returned non-2xx status code: 401 Unauthorized: ", "credentials"),
        ("Server returned non-2xx status code: 403 Nothing: ", "credentials"),
    ],
)
def test_a_refusal_is_told_by_its_status_and_not_by_a_port_or_a_time(text, told):
    assert told in _reason_of(RuntimeError(text))[0]
