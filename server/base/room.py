"""How much memory what serves may take: settings, and for those not given what the device has.

On a GPU the base is loaded first. Of what is then left of this server's share of the GPU, some is
kept for recorded steps, activations and the libraries' workspaces; keys and values, adapters'
coefficients, bases and merged weights divide the rest.
"""

import getpass
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import torch

from adapters_core.base.loading import device_of
from adapters_core.starting import CannotStart, check_device
from server.base.card import Card
from server.base.load_errors import BaseNotLoadable

_LOG = logging.getLogger("overtone.room")
_GIB = 1 << 30
#: Kept free on a GPU: so much, or this part of all its memory if that is more.
_RESERVE, _RESERVED_PART = _GIB, 32
#: With less than this nothing is begun.
_LEAST = 1 << 28
#: How a GPU's room is divided. Merged weights are large, and few adapters have some if not all do.
_SHARES = {"kv_bytes": 8, "coefficient_bytes": 4, "basis_bytes": 2, "merged_bytes": 2}


class NoRoom(BaseNotLoadable):
    """The device's memory is too small for what is asked for."""


@dataclass(frozen=True)
class Room:
    """Bytes on the device, at most.

    Args:
        kv_bytes: for keys and values.
        coefficient_bytes: for factored adapters' coefficients.
        basis_bytes: for bases that adapters share.
        merged_bytes: for merged weights.
    """

    kv_bytes: int
    coefficient_bytes: int
    basis_bytes: int
    merged_bytes: int


ON_A_CPU = Room(2 * _GIB, _GIB, 4 * _GIB, 2 * _GIB)


@dataclass(frozen=True)
class CardMemory:
    """A GPU's memory with the base in it.

    Args:
        device: its name.
        free: bytes that nothing uses.
        total: bytes of the GPU.
        own: bytes that this process uses.
        others: bytes that other servers may take, those that they use among them.
    """

    device: str
    free: int
    total: int
    own: int = 0
    others: int = 0

    @property
    def reserve(self) -> int:
        """Return the bytes that are kept for recordings, activations and workspaces."""
        return max(_RESERVE, self.total // _RESERVED_PART)

    def left(self, share: float) -> int:
        """Return the bytes to divide for a server that may use this share of the GPU."""
        unclaimed = min(self.free, self.total - self.others - self.own)
        return min(unclaimed, int(share * self.total) - self.own) - self.reserve


def divided(given: Mapping[str, int | None], memory: CardMemory | None, share: float) -> Room:
    """Return the room of a server.

    Args:
        given: by the names of `Room`; None follows the device.
        memory: of the GPU; None: a CPU computes.
        share: of the GPU's memory that the server may use.

    Raises:
        NoRoom: there is too little; names bytes and settings.
    """
    fixed = {name: size for name, size in given.items() if size is not None}
    if memory is None:
        return Room(**(asdict(ON_A_CPU) | fixed))
    parts = {name: part for name, part in _SHARES.items() if name not in fixed}
    left = memory.left(share) - sum(fixed.values())
    if left < (_LEAST if parts else 0):
        raise _no_room(fixed, memory, share)
    return Room(**fixed, **{n: left * part // sum(parts.values()) for n, part in parts.items()})


def _no_room(fixed: Mapping[str, int], memory: CardMemory, share: float) -> NoRoom:
    names = ", ".join(f"OVERTONE_{name.upper()}" for name, size in fixed.items() if size)
    asked = f"{sum(fixed.values())} bytes are set aside by {names}" if names else "nothing is set"
    hint = f"lower {names}, " if names else ""
    others = f", {memory.others} of them promised to other servers" if memory.others else ""
    return NoRoom(
        f"{memory.device} has too little memory: {memory.free} bytes of {memory.total} are free "
        f"with the base in {memory.own}{others}; at least {_LEAST + memory.reserve} are wanted, "
        f"{memory.reserve} of them for recorded steps and workspaces, and {asked}. With "
        f"--device-share {share:g} this server may use {int(share * memory.total)} in all: "
        f"{hint}raise OVERTONE_DEVICE_SHARE, choose another --device, or end what uses this one"
    )


def room_on(device: torch.device, given: Mapping[str, int | None], share: float) -> Room:
    """Return the room of a server on a device with its base, and claim it there.

    Raises:
        NoRoom: as `divided` says.
    """
    memory, card = memory_of(device), card_of(device)
    room = divided(given, memory, share)
    sizes = ", ".join(f"{name} {size}" for name, size in asdict(room).items())
    if memory is not None and card is not None:
        card.claim(memory.own + memory.reserve + sum(asdict(room).values()))
        _LOG.info(
            "%s: %d of %d bytes are free beside the base; %d are kept for recorded steps and "
            "workspaces",
            *(memory.device, memory.free, memory.total, memory.reserve),
        )
    _LOG.info("set aside at most: %s", sizes)
    return room


def give_back(device: torch.device) -> None:
    """Take back what this server claims on a device."""
    card = card_of(device)
    if card is not None:
        card.release()


def memory_of(device: torch.device) -> CardMemory | None:
    """Return a GPU's memory as it is now; None for a CPU."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    own = torch.cuda.memory_reserved(device)
    unused = own - torch.cuda.memory_allocated(device)
    card = card_of(device)
    others = 0 if card is None else card.others()
    return CardMemory(str(device), free + unused, total, own - unused, others)


def check_fits(num_bytes: int, device: torch.device) -> None:
    """Check that a base's weights fit on a device.

    Raises:
        NoRoom: they do not.
    """
    memory = memory_of(device)
    if memory is not None and num_bytes > memory.free:
        raise NoRoom(
            f"the base's weights take {num_bytes} bytes, and {memory.free} of {memory.total} are "
            f"free on {memory.device}: give --dtype bfloat16 if it is loaded in float32, choose "
            "another --device, or end what uses this one"
        )


@contextmanager
def start_on(setting: str) -> Iterator[None]:
    """Start a server while no other one starts on its GPU; at once on a CPU.

    Raises:
        BaseNotLoadable: this machine has no such device.
    """
    try:
        check_device(setting)
    except CannotStart as error:
        raise BaseNotLoadable(str(error)) from error
    device = device_of(setting)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise BaseNotLoadable(f"device {setting!r}: this machine has {count}, from cuda:0 on")
    card = card_of(device)
    if card is None:
        yield
        return
    with card.turn():
        yield


def card_of(device: torch.device) -> Card | None:
    """Return what servers on a GPU share, the same object for the same GPU; None for a CPU."""
    if device.type != "cuda":
        return None
    index = torch.cuda.current_device() if device.index is None else device.index
    properties = torch.cuda.get_device_properties(index)
    # Two processes may number the GPUs that they see in their own way.
    return _card(str(getattr(properties, "uuid", index)), f"cuda:{index}")


@lru_cache(maxsize=16)
def _card(uuid: str, name: str) -> Card:
    return Card(Path(tempfile.gettempdir()) / f"overtone-{getpass.getuser()}-{uuid}", name)
