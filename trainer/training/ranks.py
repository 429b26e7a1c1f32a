"""The processes that run one job together: each computes its share of every step.

Every rank has the base; the first one has all else: the optimiser, evaluations, checkpoints, the
registry. It sends the others each step's number and the trained tensors; all compute the gradients
of their share, and the first one receives the sum. So the others hold no state of their own that
could differ from the first rank's.

`torch.distributed` carries the tensors (gloo between CPUs, NCCL between GPUs). Nothing is pickled:
processes exchange tensors and JSON lines alone. They meet at a file in the job's folder, since
torch's TCP store listens on every interface of a machine, whatever its address.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from registry.jobs.spec import JobSpec
from trainer.errors import RankLost
from trainer.training.schedule import mixed
from trainer.training.trainable import TrainableAdapter

#: The longest wait for another rank within a step.
ANSWER_S = 600.0
Send = Callable[[dict[str, Any]], None]


class Ranks:
    """The interface of all ranks, and a job of one process.

    Several processes are `DistributedRanks`.
    """

    number = 0
    count = 1

    def begin(self, spec: JobSpec) -> None:
        """Have the other ranks prepare a training run."""

    def compare(self, trainable: TrainableAdapter) -> None:
        """Check that the tensors that are not trained are the same in all ranks."""

    def open(self, step: int, trained: Sequence[Tensor]) -> None:
        """Begin a step: all ranks have the first one's `trained` afterwards."""

    def share(self, numbers: list[int]) -> list[int]:
        """Return this rank's examples of a step; there may be none."""
        return numbers[self.number :: self.count]

    def seed(self, seed: int) -> int:
        """Return this rank's own seed, so that dropout differs between shares."""
        return mixed(seed, self.number) if self.number else seed

    def total(self, count: int) -> int:
        """Return the sum of all ranks' counts."""
        return count

    def sum(self, trained: Sequence[Tensor], loss: float, num_tokens: int) -> tuple[float, int]:
        """Add up the gradients of `trained` in the first rank; return loss and tokens of all."""
        return loss, num_tokens


class DistributedRanks(Ranks):
    """One of several ranks.

    Args:
        number: of this one.
        count: of all.
        device: of its tensors.
        send: sends an order from the first rank to the others.
        why: returns, after a failure, what happened to the other ranks.
    """

    def __init__(
        self,
        number: int,
        count: int,
        device: torch.device,
        send: Send = lambda order: None,
        why: Callable[[], str] = lambda: "the first rank does not answer",
    ) -> None:
        self.number, self.count = number, count
        self._device, self._send, self._why = device, send, why

    def join(self, meeting: Path, timeout_s: float = ANSWER_S) -> None:
        """Connect to the other ranks through a file.

        Raises:
            RankLost: one did not connect in time.
        """
        loopback = "lo" if sys.platform == "linux" else "lo0"
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(name, loopback)
        is_gpu = self._device.type == "cuda"
        if is_gpu:  # else all ranks would allocate on the first GPU
            torch.cuda.set_device(self._device)
        with self._answered():
            dist.init_process_group(
                "nccl" if is_gpu else "gloo",
                store=dist.FileStore(str(meeting), self.count),  # type: ignore[attr-defined]
                rank=self.number,
                world_size=self.count,
                timeout=timedelta(seconds=timeout_s),
                device_id=self._device if is_gpu else None,
            )

    def leave(self) -> None:
        """Disconnect from the others. Safe to call twice."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def begin(self, spec: JobSpec) -> None:
        self._send({"begin": spec.to_json()})

    def compare(self, trainable: TrainableAdapter) -> None:
        self._send({"compare": True})
        for one in trainable.tensors():
            if one.tensor.requires_grad:
                continue
            mine = one.tensor.detach().clone().reshape(-1).view(torch.uint8)  # any dtype
            first = mine.clone()
            with self._answered():
                dist.broadcast(first, 0)
            if not torch.equal(mine, first):
                # Each computed it from its base: equal coefficients would be different updates.
                raise RankLost(f"rank {self.number} has another {one.name} than the first rank")

    def open(self, step: int, trained: Sequence[Tensor]) -> None:
        self._send({"step": step})
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in trained])
        with self._answered():
            dist.broadcast(flat, 0)
        if self.number:
            for tensor, part in _parts(flat, trained):
                tensor.data.copy_(part)

    def total(self, count: int) -> int:
        counts = torch.tensor([count], device=self._device)
        with self._answered():
            dist.all_reduce(counts)
        return int(counts)

    def sum(self, trained: Sequence[Tensor], loss: float, num_tokens: int) -> tuple[float, int]:
        zeros = (torch.zeros_like(t) if t.grad is None else t.grad for t in trained)
        flat = torch.cat([gradient.reshape(-1) for gradient in zeros])
        known = [float(tensor.grad is not None) for tensor in trained]
        numbers = torch.tensor([loss, num_tokens, *known], dtype=torch.float64, device=self._device)
        with self._answered():
            dist.reduce(flat, 0)
            dist.reduce(numbers, 0)
        loss, tokens, *known = numbers.tolist()
        for (tensor, part), times in zip(_parts(flat, trained), known, strict=True):
            tensor.grad = part.clone() if times and self.number == 0 else None
        return loss, int(tokens)

    @contextmanager
    def _answered(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # of torch.distributed: no connection, no answer in time
            raise RankLost(self._why()) from error


def _parts(flat: Tensor, like: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each tensor and its part of `flat`, in its shape."""
    sizes = [tensor.numel() for tensor in like]
    for tensor, part in zip(like, flat.split(sizes), strict=True):
        yield tensor, part.view_as(tensor)
