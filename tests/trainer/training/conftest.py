"""A tiny base and a few examples; on one thread, faster for it and with sums in one order."""

from collections.abc import Iterator

import pytest
import torch

from small_jobs import lm_base, sums
from trainer.base import LoadedBase
from trainer.interfaces import JobFiles


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base() -> LoadedBase:
    return lm_base()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> JobFiles:
    return JobFiles(sums(tmp_path_factory.mktemp("files") / "sums.jsonl"))
