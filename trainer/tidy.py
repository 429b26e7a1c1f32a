"""Folders of jobs that have ended go: what they made is published, what they said is recorded."""

from registry.connect import Registry
from registry.errors import JobNotFound


def tidy(registry: Registry, job_id: str) -> bool:
    """Remove a job's folder if nobody will go on with it; return whether that is so."""
    try:
        is_over = registry.jobs.get(job_id).is_final
    except JobNotFound:
        is_over = True
    if is_over:
        registry.job_folders.remove(job_id)
    return is_over


def tidy_all(registry: Registry) -> None:
    """Remove the folders that dead processes left, of jobs that were cancelled meanwhile."""
    for job_id in registry.job_folders.jobs():
        tidy(registry, job_id)
