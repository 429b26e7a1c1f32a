"""How a device's memory is divided, and what is said where it is too small."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from server.base import room
from server.base.card import Card
from server.base.load_errors import BaseNotLoadable
from server.base.room import ON_A_CPU, CardMemory, NoRoom, Room, check_fits, divided, start_on

GIB = 1 << 30
CPU, GPU = torch.device("cpu"), torch.device("cuda:1")
NAMES = ("kv_bytes", "coefficient_bytes", "basis_bytes", "merged_bytes")
OPEN: dict[str, int | None] = dict.fromkeys(NAMES)
#: A base of 16 GiB on 80.
CARD = CardMemory("cuda:1", 63 * GIB, 80 * GIB, own=16 * GIB)


def test_a_cpu_has_fixed_sizes_for_what_is_not_given() -> None:
    assert divided(OPEN, None, 0.9) == ON_A_CPU
    assert divided(OPEN | {"kv_bytes": 7}, None, 0.9) == Room(
        7, *list(asdict(ON_A_CPU).values())[1:]
    )


def test_a_gpus_room_is_divided_beside_base_and_reserve() -> None:
    found = divided(OPEN, CARD, 0.9)
    assert sum(asdict(found).values()) == pytest.approx((72 - 16 - 2.5) * GIB)
    assert found.kv_bytes == pytest.approx(26.75 * GIB)
    assert found.kv_bytes == 2 * found.coefficient_bytes == 4 * found.merged_bytes


def test_what_is_given_is_taken_first() -> None:
    found = divided(OPEN | {"kv_bytes": 40 * GIB, "merged_bytes": 0}, CARD, 0.9)
    assert (found.kv_bytes, found.merged_bytes) == (40 * GIB, 0)
    assert found.coefficient_bytes + found.basis_bytes == pytest.approx(13.5 * GIB)


def test_what_others_may_take_later_is_no_ones_to_take() -> None:
    # The other server uses 20 GiB now, and may take 40.
    beside = CardMemory("cuda:1", 44 * GIB, 80 * GIB, own=16 * GIB, others=40 * GIB)
    found = divided(OPEN, beside, 0.9)
    assert sum(asdict(found).values()) == pytest.approx((80 - 40 - 16 - 2.5) * GIB)


@settings(max_examples=100, deadline=None)
@given(
    total=st.integers(8 * GIB, 200 * GIB),
    base=st.floats(0.05, 0.4),
    share=st.floats(0.1, 0.5),
    sizes=st.lists(st.none() | st.integers(0, 20 * GIB), min_size=4, max_size=4),
)
def test_two_servers_with_a_share_each_fit(
    total: int, base: float, share: float, sizes: list[int | None]
) -> None:
    own, promised = int(base * share * total), 0
    for _ in range(2):
        memory = CardMemory("cuda:0", total - promised - own, total, own, promised)
        try:
            found = divided(dict(zip(NAMES, sizes, strict=True)), memory, share)
        except NoRoom:
            return
        promised += own + memory.reserve + sum(asdict(found).values())
        assert promised <= total
        assert own + memory.reserve + sum(asdict(found).values()) <= share * total + 1


def test_too_little_is_said_with_bytes_and_settings() -> None:
    with pytest.raises(NoRoom) as caught:
        divided(OPEN | {"kv_bytes": 60 * GIB}, CARD, 0.9)
    said = str(caught.value)
    for part in (str(63 * GIB), str(80 * GIB), str(60 * GIB), "OVERTONE_KV_BYTES"):
        assert part in said
    assert "cuda:1 has too little memory" in said
    assert "OVERTONE_DEVICE_SHARE" in said
    with pytest.raises(NoRoom, match=f"{31 * GIB} of them promised to other servers"):
        divided(OPEN, CardMemory("cuda:1", 20 * GIB, 48 * GIB, 16 * GIB, 31 * GIB), 0.9)


class Torch:
    """What torch says of two GPUs."""

    def __init__(self) -> None:
        self.asked: list[torch.device] = []

    def mem_get_info(self, device: torch.device) -> tuple[int, int]:
        self.asked.append(device)
        return 50 * GIB, 80 * GIB

    def memory_reserved(self, device: torch.device) -> int:
        self.asked.append(device)
        return 18 * GIB

    def memory_allocated(self, device: torch.device) -> int:
        self.asked.append(device)
        return 16 * GIB

    def device_count(self) -> int:
        return 2

    def get_device_properties(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(uuid=f"uuid-{index}")


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Torch]:
    fake = Torch()
    monkeypatch.setattr(torch, "cuda", fake)
    monkeypatch.setattr(room, "check_device", lambda setting: None)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    room._card.cache_clear()
    yield fake
    room._card.cache_clear()


def test_the_memory_of_the_chosen_gpu_is_measured_and_claimed(
    gpus: Torch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"), start_on("cuda:1"):
        found = room.room_on(GPU, OPEN, 0.5)
    assert set(gpus.asked) == {GPU}
    # 40 GiB are this server's, 16 of them the base's; 2 are torch's own, to use again.
    assert sum(asdict(found).values()) == pytest.approx((40 - 16 - 2.5) * GIB)
    assert f"{52 * GIB} of {80 * GIB} bytes are free" in caplog.text
    assert f"kv_bytes {found.kv_bytes}" in caplog.text
    (folder,) = tmp_path.iterdir()
    assert folder.name.endswith("uuid-1")
    assert Card(folder, "cuda:1").others() == pytest.approx(40 * GIB, abs=8)
    room.give_back(GPU)
    assert Card(folder, "cuda:1").others() == 0


def test_a_base_that_does_not_fit_is_said_before_it_is_moved(gpus: Torch) -> None:
    check_fits(52 * GIB, GPU)
    with pytest.raises(NoRoom, match=f"{53 * GIB} bytes, and {52 * GIB} of {80 * GIB} are free"):
        check_fits(53 * GIB, GPU)


def test_a_gpu_that_is_not_there_is_said(gpus: Torch) -> None:
    with pytest.raises(BaseNotLoadable, match="'cuda:2': this machine has 2"), start_on("cuda:2"):
        pass


def test_a_cpu_has_nothing_to_wait_for_or_claim(tmp_path: Path) -> None:
    with start_on("cpu"):
        assert room.room_on(CPU, OPEN, 0.9) == ON_A_CPU
        check_fits(1 << 60, CPU)
    room.give_back(CPU)
