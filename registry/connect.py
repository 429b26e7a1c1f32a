"""Open everything that processes share, by one URL and one folder."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from adapters_core.starting import check_folder
from registry.access.api_keys import ApiKeys
from registry.access.mirror import GRACE_S, KeyMirror
from registry.adapters.adapters import Adapters
from registry.adapters.blob_cache import CACHE_BYTES, BlobCache
from registry.adapters.blobs import BlobStore
from registry.adapters.bucket_blobs import Blobs, BucketBlobs
from registry.adapters.directory import Directory
from registry.adapters.view import AdapterView
from registry.batches.batches import Batches
from registry.batches.claims import BatchClaims
from registry.batches.segments import BatchFolders
from registry.errors import RegistryUnusable
from registry.files import Files
from registry.jobs.claims import Claims
from registry.jobs.folders import JobFolders
from registry.jobs.jobs import Jobs
from registry.jobs.workers import Workers
from registry.objects.bucket import Bucket
from registry.objects.place import BucketName, store_place
from registry.quotas.rates import Rates
from registry.quotas.stocks import Stocks
from registry.quotas.tenant_limits import TenantLimits
from registry.redis.address import EMBEDDED, masked
from registry.redis.client import PATIENT_S, open_client
from registry.redis.embedded import EmbeddedServer
from registry.redis.reach import PATIENCE_S, reach
from registry.redis.scripts import Observer
from registry.store.ownership import Ownership
from registry.store.places import BucketPlace, FolderPlace, StorePlace
from registry.store.unknown import UnknownBytes
from registry.tenants import Tenants

#: A registry that has not answered by then is said to be waited for.
_FIRST_LOOK_S = 0.7


@dataclass(frozen=True)
class Registry:
    """What one process holds of the registry; a context manager.

    Args:
        client: the Redis behind it, answering bytes.
        shown: its URL without its password.
        store: the store's folder; of one in a bucket, for all but adapters' bytes.
        adapters: names, versions and aliases, of all tenants.
        blobs: the bytes.
        jobs: training jobs, as their callers see them.
        claims: the same, as their workers do.
        batches: batches of requests, as their callers see them.
        batch_claims: the same, as their servers do.
        files: what is uploaded to train on, or to answer as a batch, and batches' results.
        job_folders: where jobs' processes work.
        batch_folders: where batches' answers are until all are there.
        directory: this process's mirror of names; a server starts it, others need not.
        workers: which workers are alive.
        tenants: which tenant has what.
        api_keys: the keys of callers of the REST API.
        key_mirror: this process's mirror of them, which follows with the directory.
        tenant_limits: what tenants may ask, where it is not the servers' default.
        rates: how much of that is left, over all servers.
        stocks: how much of what is limited a tenant has.
        ownership: whether the store is this registry's; a program asks once, before it uses them.
        unknown: what lies in the store and no record names.
        server: the embedded server, if this is one.
        url: with its password, or `embedded`.
    """

    client: redis.Redis
    shown: str
    store: Path
    adapters: Adapters
    blobs: Blobs
    jobs: Jobs
    claims: Claims
    batches: Batches
    batch_claims: BatchClaims
    files: Files
    job_folders: JobFolders
    batch_folders: BatchFolders
    directory: Directory
    workers: Workers
    tenants: Tenants
    api_keys: ApiKeys
    key_mirror: KeyMirror
    tenant_limits: TenantLimits
    rates: Rates
    stocks: Stocks
    ownership: Ownership
    unknown: UnknownBytes
    server: EmbeddedServer | None
    url: str = field(repr=False)

    def patient(self) -> redis.Redis:
        """Return a client for commands that take minutes; the caller closes it."""
        return self.server.client(PATIENT_S) if self.server else open_client(self.url, PATIENT_S)

    def open_store(self, patience_s: float = PATIENCE_S) -> None:
        """Make sure that the registry answers and the store is its own: before either is used.

        Args:
            patience_s: how long a registry that is started at the same time is waited for.

        Raises:
            RegistryUnusable: it does not answer; the message says why.
            ForeignStore: the store is another registry's, or the registry another store's.
        """
        reach(self.client, self.shown, patience_s)
        self.ownership.settle()

    def adapters_of(self, space: str) -> AdapterView:
        """Return the adapters as the tenant with this space of names sees them."""
        return AdapterView(self.adapters, self.directory, space)

    def free_bytes(self) -> int:
        """Return how much more the store's disk takes, or the embedded server's if that is less."""
        disks = [self.blobs.free_bytes()]
        return min(disks if self.server is None else [*disks, self.server.free_bytes()])

    def close(self) -> None:
        """End the mirror, the connections and the embedded server. Safe to call twice."""
        self.directory.close()
        self.ownership.close()
        self.client.close()
        if self.server is not None:
            self.server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def check_url(url: str) -> None:
    """Check how a registry is named; nothing is connected.

    Raises:
        InvalidArgument: it is neither `embedded` nor a URL.
    """
    if url != EMBEDDED:
        open_client(url).close()


def check_store(store: str | None) -> None:
    """Check how a store is named, and that files can be written in a folder; see `check_folder`.

    Raises:
        InvalidArgument: it is neither a folder nor a bucket.
        RegistryUnusable: it is a bucket, and the package for one is not installed.
        CannotStart: the folder cannot be written.
    """
    if store is None:
        return
    place = store_place(store, Path())
    if isinstance(place, Path):
        check_folder("store", place)
    else:
        Bucket(place)


def check_answers(url: str, tell: Callable[[str], None], patience_s: float = PATIENCE_S) -> None:
    """Check that a registry answers; the embedded one does not run yet.

    Args:
        url: as for `connect`.
        tell: called at once with the reason if it does not answer and is waited for.
        patience_s: how long one that is started at the same time is waited for.

    Raises:
        RegistryUnusable: it does not answer; the message says why.
    """
    if url == EMBEDDED:
        return
    shown = masked(url)
    try:
        with open_client(url, _FIRST_LOOK_S) as client:
            reach(client, shown)
    except RegistryUnusable as error:
        if not error.may_pass:
            raise
        tell(f"{error.message}; it is waited for, {patience_s:g} s at most")
        with open_client(url) as client:
            reach(client, shown, patience_s)


def connect(
    url: str,
    folder: Path,
    *,
    store: str | Path | None = None,
    cache_bytes: int = CACHE_BYTES,
    observer: Observer | None = None,
    key_grace_s: float = GRACE_S,
) -> Registry:
    """Open the registry at `url`; a server that is down now is not an error yet.

    Args:
        url: `embedded`, or one of a Redis (redis/shapes.py).
        folder: the application's data: the embedded server lives in `registry/`.
        store: where blobs, files and jobs' folders are, `folder / "blobs"` if not given. Of
            `s3://BUCKET/PREFIX` the blobs alone are there, and the rest in `folder / "blobs"`.
        cache_bytes: of a bucket's blobs, about so much is kept in `folder / "blob-cache"`.
        observer: called after every exchange with the server: operation, seconds, answered.
        key_grace_s: how long known API keys are accepted while the registry is away.

    Raises:
        InvalidArgument: the URL or the store is none of these.
        RegistryUnusable: the package for a bucket is not installed.
        RegistryUnavailable: the embedded server does not come up.
    """
    server = EmbeddedServer(folder / "registry") if url == EMBEDDED else None
    client = server.client() if server else open_client(url)
    adapters = Adapters(client, observer)
    blobs, place = _opened_store(store_place(store, folder / "blobs"), folder, cache_bytes)
    bytes_ = place.folder
    # Not observed: one exchange at a start would leave series without a rate among the latencies.
    ownership = Ownership(client, place, _words(url, folder, store))
    files = Files(client, bytes_ / "files", observer)
    job_folders = JobFolders(bytes_ / "jobs")
    batch_folders = BatchFolders(bytes_ / "batches")
    directory, api_keys = Directory(adapters, client), ApiKeys(client, observer)
    return Registry(
        client=client,
        shown=masked(url),
        store=bytes_,
        adapters=adapters,
        blobs=blobs,
        jobs=Jobs(client, observer),
        claims=Claims(client, observer),
        batches=Batches(client, observer),
        batch_claims=BatchClaims(client, observer),
        files=files,
        job_folders=job_folders,
        batch_folders=batch_folders,
        directory=directory,
        workers=Workers(client, observer),
        tenants=Tenants(client, observer),
        api_keys=api_keys,
        key_mirror=KeyMirror(api_keys, directory, grace_s=key_grace_s),
        tenant_limits=TenantLimits(client, observer),
        rates=Rates(client, observer),
        stocks=Stocks(client, observer),
        ownership=ownership,
        unknown=UnknownBytes(bytes_, ownership, blobs, files, job_folders, batch_folders),
        server=server,
        url=url,
    )


def _opened_store(
    where: Path | BucketName, folder: Path, cache_bytes: int
) -> tuple[Blobs, StorePlace]:
    """Return where the blobs are, and the place of the store."""
    if isinstance(where, Path):
        return BlobStore(where), FolderPlace(where)
    bucket = Bucket(where)
    blobs = BucketBlobs(bucket, BlobCache(folder / "blob-cache", cache_bytes))
    return blobs, BucketPlace(bucket, blobs, folder / "blobs")


def _words(url: str, folder: Path, store: str | Path | None) -> str:
    """Return the options that name this registry and store, without the URL's password."""
    given = ["--registry", masked(url), "--data", str(folder)]
    given += [] if store is None else ["--store", str(store)]
    return shlex.join(given)
