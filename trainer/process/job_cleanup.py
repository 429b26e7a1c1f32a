"""Removes the folders of ended jobs: results are published and reports are in the registry.

The folder of a job that failed after a checkpoint stays as long as the job's record (90 days): it
holds training that no adapter has. The folder of a job that the registry does not know stays, too:
the registry may have been restored from an older backup. `overtone gc` lists such folders.
"""

from registry.connect import Registry
from registry.errors import JobNotFound
from registry.jobs.record import JobRecord


def remove_folder_if_done(registry: Registry, job_id: str) -> bool:
    """Remove a job's folder if nothing in it is needed any more; return whether it was removed."""
    try:
        record = registry.jobs.get(job_id)
    except JobNotFound:
        return False
    if not record.is_final or _has_unpublished_training(registry, record):
        return False
    registry.job_folders.remove(job_id)
    return True


def remove_finished_folders(registry: Registry) -> None:
    """Remove the folders that killed processes left and whose jobs have ended since."""
    for job_id in registry.job_folders.jobs():
        remove_folder_if_done(registry, job_id)


def _has_unpublished_training(registry: Registry, record: JobRecord) -> bool:
    return record.state == "failed" and bool(registry.jobs.checkpoints(record.id, 1))
