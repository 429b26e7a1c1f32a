"""The processes that do one job together: each takes its share of every step.

Every rank has the base; the first one has all else: the optimiser, evaluations, checkpoints, the
registry. It tells the others each step's number and the tensors that move, all of them work out
the gradients of their share, and the first one gets the sum. So the others remember nothing that
is worth keeping, and no two ranks can ever come apart.

`torch.distributed` carries the tensors (gloo between CPUs, NCCL between GPUs). Nothing is pickled:
tensors and JSON lines are all that goes from one process to another. They meet in a file of the
job's folder, since torch's TCP store listens on every interface of a machine, whatever its address.
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

#: The longest that ranks wait for each other within a step.
ANSWER_S = 600.0
Tell = Callable[[dict[str, Any]], None]


class Ranks:
    """A job that one process does: all of a step is its own.

    Several are `DistributedRanks`, with the same words.
    """

    number = 0
    count = 1

    def begin(self, spec: JobSpec) -> None:
        """Have the other ranks make ready for a training run."""

    def compare(self, trainable: TrainableAdapter) -> None:
        """Make sure that what never moves is the same in all ranks."""

    def open(self, step: int, moved: Sequence[Tensor]) -> None:
        """Begin a step: all ranks have the first one's `moved` afterwards."""

    def share(self, numbers: list[int]) -> list[int]:
        """Return which of a step's examples are this rank's; there may be none."""
        return numbers[self.number :: self.count]

    def seed(self, seed: int) -> int:
        """Return this rank's own: dropout must not drop the same in all shares."""
        return mixed(seed, self.number) if self.number else seed

    def total(self, count: int) -> int:
        """Return the sum of all ranks' counts."""
        return count

    def sum(self, moved: Sequence[Tensor], loss: float, num_tokens: int) -> tuple[float, int]:
        """Add up the gradients of `moved` in the first rank; return loss and tokens of all."""
        return loss, num_tokens


class DistributedRanks(Ranks):
    """One of several ranks.

    Args:
        number: of this one.
        count: of all.
        device: where its tensors are.
        tell: the first rank's way to the others; the others have none.
        why: says, after a failure, what became of the other ranks.
    """

    def __init__(
        self,
        number: int,
        count: int,
        device: torch.device,
        tell: Tell = lambda order: None,
        why: Callable[[], str] = lambda: "the first rank does not answer",
    ) -> None:
        self.number, self.count = number, count
        self._device, self._tell, self._why = device, tell, why

    def join(self, meeting: Path, timeout_s: float = ANSWER_S) -> None:
        """Meet the other ranks at a file; all must come.

        Raises:
            RankLost: one has not come in time.
        """
        loopback = "lo" if sys.platform == "linux" else "lo0"
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(name, loopback)
        is_gpu = self._device.type == "cuda"
        if is_gpu:  # else all of them would begin on the first one
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
        """Part from the others. Safe to call twice."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def begin(self, spec: JobSpec) -> None:
        self._tell({"begin": spec.to_json()})

    def compare(self, trainable: TrainableAdapter) -> None:
        self._tell({"compare": True})
        for one in trainable.tensors():
            if one.tensor.requires_grad:
                continue
            mine = one.tensor.detach().clone().reshape(-1).view(torch.uint8)  # any dtype
            first = mine.clone()
            with self._answered():
                dist.broadcast(first, 0)
            if not torch.equal(mine, first):
                # Each computed it from the base: their deltas would mean different things.
                raise RankLost(f"rank {self.number} has another {one.name} than the first one")

    def open(self, step: int, moved: Sequence[Tensor]) -> None:
        self._tell({"step": step})
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in moved])
        with self._answered():
            dist.broadcast(flat, 0)
        if self.number:
            for tensor, part in _parts(flat, moved):
                tensor.data.copy_(part)

    def total(self, count: int) -> int:
        counts = torch.tensor([count], device=self._device)
        with self._answered():
            dist.all_reduce(counts)
        return int(counts)

    def sum(self, moved: Sequence[Tensor], loss: float, num_tokens: int) -> tuple[float, int]:
        zeros = (torch.zeros_like(t) if t.grad is None else t.grad for t in moved)
        flat = torch.cat([gradient.reshape(-1) for gradient in zeros])
        known = [float(tensor.grad is not None) for tensor in moved]
        words = torch.tensor([loss, num_tokens, *known], dtype=torch.float64, device=self._device)
        with self._answered():
            dist.reduce(flat, 0)
            dist.reduce(words, 0)
        loss, tokens, *known = words.tolist()
        for (tensor, part), times in zip(_parts(flat, moved), known, strict=True):
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
