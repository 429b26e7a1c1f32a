"""Every Redis key of the registry, and how long it lives.

All keys carry the same hash tag, so that a cluster keeps them in one slot and one script may touch
them together. Per name: a few small keys; over all names: indexes with one short entry a name.
"""

PREFIX = "overtone:{registry}:"

# For ever: which registry this is, which store is its own (ownership.py), by which schema its keys
# are (schema.py), and whether it ever had an API key, since requests need one from then on.
# HASH: id, store -> 32 hex digits each; schema -> number; has_keys -> 1
IDENTITY = PREFIX + "identity"

# While the name has a live version.
# A name is stored with its space (common/spaces.py); these are the operators' space's, and the
# functions `names` and `method_names` give those of any.
NAMES = PREFIX + "names"  # ZSET, all scores 0: the names in lexical order
NAMES_OF = NAMES + ":of:"  # + space, ZSET: the same of a tenant's
METHOD_NAMES = PREFIX + "method:"  # + method, ZSET: the names whose latest version has this method

# For an hour after they were counted (held.lua): sums of bytes, STRING each, under the key of their
# index (NAMES, NAMES_OF, FILES_OF) with `bytes:` behind the hash tag.
BYTES = PREFIX + "bytes:"

# While the adapter is shared with other tenants.
SHARING = PREFIX + "sharing"  # HASH: name -> tenants, one a line; `*` is all of them
SHARED_WITH = PREFIX + "sharing:with:"  # + tenant or `*`, ZSET: names shared with it

# While a record refers to the digest.
DIGESTS = PREFIX + "digests"  # HASH: digest -> number of records, over all names

# For ever: a version number is never given twice, not even after its name was deleted.
COUNTERS = PREFIX + "counters"  # HASH: name -> highest version ever given

# For ever, trimmed to about MAX_CHANGES entries.
CHANGES = PREFIX + "changes"  # STREAM: what changed, for the servers' mirrors
SEQUENCE = PREFIX + "sequence"  # STRING: number of changes so far, so that a reader sees a gap
MAX_CHANGES = 10_000

# Training jobs and the files they read. A job's record is kept for ever, its history for
# KEPT_LOG_S after its end. The queues themselves are RQ's, under `rq:`, and can be lost.
JOBS = PREFIX + "jobs"  # ZSET: every job's id by its creation
JOBS_IN_STATE = PREFIX + "jobs:state:"  # + state, ZSET: the jobs in it by their creation
JOBS_OF = PREFIX + "jobs:of:"  # + tenant, ZSET: its jobs by their creation
TOTALS = PREFIX + "train-totals"  # HASH: steps and tokens trained by all jobs, the latest loss
FILES = PREFIX + "files"  # HASH: file's id -> record as JSON
FILES_IN_ORDER = PREFIX + "files:order"  # ZSET: every file's id by its creation
FILES_OF = PREFIX + "files:of:"  # + tenant, ZSET: its files by their creation
FILE_USERS = PREFIX + "file-users:"  # + file's id, SET: the jobs and batches that still need it
JOB = PREFIX + "job:"  # + job's id, HASH: its record
MAX_EVENTS = 5_000  # of one job, about
MAX_METRICS = 50_000  # steps of one job, about
WORKERS = PREFIX + "workers"  # HASH: worker's name -> record as JSON
WORKERS_SEEN = PREFIX + "workers:seen"  # ZSET: worker's name by the time of its last report
KEPT_LOG_S = 90 * 24 * 3600

# Batches of requests over an uploaded file; a batch's record is kept for ever.
BATCHES = PREFIX + "batches"  # ZSET: every batch's id by its creation
BATCHES_IN_STATE = PREFIX + "batches:state:"  # + state, ZSET: the batches in it by their creation
BATCHES_OF = PREFIX + "batches:of:"  # + tenant, ZSET: its batches by their creation
BATCHES_OPEN = PREFIX + "batches:open:"  # + base's name, ZSET: its batches that are not over
BATCH = PREFIX + "batch:"  # + batch's id, HASH: its record
REACHED_AT = "at:"  # + state, field of a batch's record: when it was first in it

# API keys. A key's record is dropped KEPT_ENDED_KEY_S after the key was revoked or has expired.
API_KEYS = PREFIX + "api-keys"  # ZSET: every key's id by its creation
API_KEYS_OF = PREFIX + "api-keys:of:"  # + tenant, ZSET: its keys by their creation
API_KEYS_ENDED = PREFIX + "api-keys:ended"  # ZSET: key's id by when it has ended, or will end
API_KEY = PREFIX + "api-key:"  # + key's id, HASH: its record, with the hashes of its secrets
KEPT_ENDED_KEY_S = 90 * 24 * 3600

# For ever: limits of tenants, where they are not the servers' default.
LIMITS = PREFIX + "limits"  # HASH: tenant -> its own limits as JSON


def records(name: str) -> str:
    """HASH version -> record as JSON. Lives as long as the name has a version."""
    return f"{PREFIX}records:{name}"


def versions(name: str) -> str:
    """ZSET of the live versions, scored by themselves. Lives as long as the name."""
    return f"{PREFIX}versions:{name}"


def by_digest(name: str) -> str:
    """HASH digest -> version, among the live versions. Lives as long as the name."""
    return f"{PREFIX}by-digest:{name}"


def aliases(name: str) -> str:
    """HASH alias -> version, with `latest` among them. Lives as long as the name."""
    return f"{PREFIX}aliases:{name}"


def job(id_: str) -> str:
    """HASH of one job's record: its spec as JSON, its state, and the rest as plain words."""
    return JOB + id_


def job_events(id_: str) -> str:
    """STREAM of what happened to a job, trimmed to about MAX_EVENTS."""
    return f"{PREFIX}job-events:{id_}"


def job_metrics(id_: str) -> str:
    """STREAM of a job's measurements, placed by their step, trimmed to about MAX_METRICS."""
    return f"{PREFIX}job-metrics:{id_}"


def job_checkpoints(id_: str) -> str:
    """STREAM of a job's checkpoints, placed by their step."""
    return f"{PREFIX}job-checkpoints:{id_}"


def job_samples(id_: str) -> str:
    """STREAM of what a job's adapter answered at its latest checkpoints, placed by their step."""
    return f"{PREFIX}job-samples:{id_}"


def job_logs(id_: str) -> list[str]:
    """Return the keys of a job's history, in the order in which every script takes them."""
    return [job_events(id_), job_metrics(id_), job_checkpoints(id_), job_samples(id_)]


def batch(id_: str) -> str:
    """HASH of one batch's record: its spec as JSON, its state, and the rest as plain words."""
    return BATCH + id_


def api_key(id_: str) -> str:
    """HASH of one API key's record; no secret is in it, only their hashes."""
    return API_KEY + id_


def rates(tenant: str) -> str:
    """HASH of a tenant's rates (rates.lua). Lives until its buckets are full and no server asks."""
    return f"{PREFIX}rates:{tenant}"


def names(space: str) -> str:
    """ZSET, all scores 0: a space's names in lexical order."""
    return NAMES_OF + space if space else NAMES


def method_names(space: str) -> str:
    """Return the beginning of a space's indexes by method: ZSETs, with the method behind it."""
    return f"{METHOD_NAMES}of:{space}:" if space else METHOD_NAMES


def adapter(name: str) -> list[str]:
    """Return one name's keys in the order in which every script takes them first."""
    return [records(name), versions(name), by_digest(name), aliases(name)]


def common(space: str) -> list[str]:
    """Return the keys of all names of a space in the order in which writing scripts take them."""
    return [names(space), DIGESTS, COUNTERS, CHANGES, SEQUENCE]
