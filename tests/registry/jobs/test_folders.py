"""A claim has its job's folder to itself."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from registry.common.fence import Fence
from registry.errors import (
    FenceLost,
)
from registry.jobs.folders import JobFolders


def test_a_claim_takes_its_predecessors_folder_along(tmp_path):
    folders, job = JobFolders(tmp_path), "ftjob-" + "a" * 24
    assert folders.newest(job) is None
    old = folders.take(Fence(job, 2))
    (old / "step-5").write_text("state")
    assert folders.take(Fence(job, 2)) == old

    new = folders.take(Fence(job, 5))

    assert (new / "step-5").read_text() == "state"
    assert folders.newest(job) == new
    with pytest.raises(FileNotFoundError):
        (old / "step-6").write_text("a zombie's")
    with pytest.raises(FenceLost):
        folders.take(Fence(job, 2))
    folders.remove(job)
    folders.remove(job)
    assert folders.newest(job) is None


def test_of_many_claims_the_latest_has_the_folder(tmp_path):
    folders, job = JobFolders(tmp_path), "ftjob-" + "a" * 24
    (folders.take(Fence(job, 1)) / "state").write_text("x")

    def take(number):
        try:
            return folders.take(Fence(job, number))
        except FenceLost:
            return None

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(take, range(2, 30)))

    assert found[-1] == folders.newest(job)
    assert (found[-1] / "state").read_text() == "x"
