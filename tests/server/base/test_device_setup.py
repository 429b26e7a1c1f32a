"""What torch is told for a GPU; no GPU is needed to tell it."""

from collections.abc import Iterator

import pytest
import torch

from server.base.device_setup import set_up


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(True)
    yield
    torch.backends.cuda.enable_cudnn_sdp(before)


def test_a_gpu_has_no_attention_of_cudnns() -> None:
    for _ in range(2):
        set_up(torch.device("cuda", 1))
        assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_a_cpu_changes_nothing() -> None:
    set_up(torch.device("cpu"))
    assert torch.backends.cuda.cudnn_sdp_enabled()
