"""Folders of jobs that have ended go: what they made is published, what they said is recorded.

The folder of a job that failed after a checkpoint stays as long as what the job said (90 days): it
holds training that is in no adapter. One whose job the registry does not know stays, too: the
registry may have been restored from an older backup. `overtone gc` lists that.
"""

from registry.connect import Registry
from registry.errors import JobNotFound
from registry.jobs.record import JobRecord


def remove_folder_if_done(registry: Registry, job_id: str) -> bool:
    """Remove a job's folder if nothing in it is needed any more; return whether that is so."""
    try:
        record = registry.jobs.get(job_id)
    except JobNotFound:
        return False
    if not record.is_final or _is_worth_keeping(registry, record):
        return False
    registry.job_folders.remove(job_id)
    return True


def remove_finished_folders(registry: Registry) -> None:
    """Remove the folders that dead processes left, of jobs that were cancelled meanwhile."""
    for job_id in registry.job_folders.jobs():
        remove_folder_if_done(registry, job_id)


def _is_worth_keeping(registry: Registry, record: JobRecord) -> bool:
    """Return whether training would go that is in no adapter."""
    return record.state == "failed" and bool(registry.jobs.checkpoints(record.id, 1))
