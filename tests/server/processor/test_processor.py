"""The matrix library's setting: kept per machine and base, taken before torch is loaded."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

import server.processor.search as search_module
from server.processor.choice import VARIABLE, Choice, Choices, Processor, key_of, this_processor
from server.processor.search import can_search, prepare, search
from server.settings import Settings

INTEL = Processor("GenuineIntel", "Xeon", frozenset({"avx2", "avx512f"}))


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")  # so that it is put back in any case
    monkeypatch.delenv(VARIABLE)


def settings_of(folder: Path, **changes: str) -> Settings:
    base = folder / "base"
    base.mkdir(exist_ok=True)
    (base / "config.json").write_text("{}")
    return Settings(base=str(base), data=folder, **changes)  # type: ignore[arg-type]


def on(processor: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "this_processor", lambda: processor)


def finding(found: Choice, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace the search, which takes processes of its own; return what it was called for."""
    calls: list[str] = []
    monkeypatch.setattr(search_module, "search", lambda base, _: calls.append(base) or found)
    return calls


def test_linux_describes_this_processor() -> None:
    found = this_processor()
    assert found.name
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    assert ("avx2" in found.flags) == (" avx2" in text)


def test_the_settings_that_are_tried_are_those_of_the_instruction_sets() -> None:
    assert INTEL.settings() == [None, "AVX512,STRICT", "AVX2,STRICT", "COMPATIBLE"]
    assert replace(INTEL, flags=frozenset({"avx2"})).settings()[1] == "AVX2,STRICT"
    assert Processor("", "aarch64", frozenset()).settings() == [None]
    assert INTEL.guess() == "AVX512,STRICT"
    assert replace(INTEL, vendor="AuthenticAMD").guess() is None


def test_a_choice_is_kept_beside_those_of_other_bases(tmp_path: Path) -> None:
    choices = Choices(tmp_path / "data")
    assert choices.get("a") is None
    choices.keep("a", Choice("AVX2,STRICT", 4))
    choices.keep("b", Choice(None, None))
    assert Choices(tmp_path / "data").get("a") == Choice("AVX2,STRICT", 4)
    assert choices.get("b") == Choice(None, None)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 3}', '{"a": {"cbwr": 1, "multiple": "x"}}'])
def test_a_file_that_cannot_be_read_holds_nothing_and_is_written_anew(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "processor.json").write_text(text)
    choices = Choices(tmp_path)
    assert choices.get("a") is None
    choices.keep("a", Choice(None, 8))
    assert choices.get("a") == Choice(None, 8)


def test_another_base_number_of_threads_or_instruction_set_has_a_choice_of_its_own(
    tmp_path: Path,
) -> None:
    base = Path(settings_of(tmp_path).base)
    keys = [key_of(str(base), "auto", {})]
    keys += [key_of(str(base), "bfloat16", {}), key_of(str(base), "auto", {"OMP_NUM_THREADS": "1"})]
    keys.append(key_of(str(base), "auto", {"ATEN_CPU_CAPABILITY": "avx2"}))
    (base / "config.json").write_text(json.dumps({"hidden_size": 64}))
    keys.append(key_of(str(base), "auto", {}))
    assert len(set(keys)) == len(keys)


def test_one_start_searches_and_the_next_takes_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(INTEL, monkeypatch)
    calls = finding(Choice("AVX512,STRICT", 4), monkeypatch)
    settings = settings_of(tmp_path)
    for _ in range(2):
        prepare(settings)
        assert os.environ.pop(VARIABLE) == "AVX512,STRICT"
    assert len(calls) == 1
    assert not can_search(settings)


def test_a_setting_that_is_given_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on(INTEL, monkeypatch)
    calls = finding(Choice("AVX512,STRICT", 4), monkeypatch)
    monkeypatch.setenv(VARIABLE, "AVX2")
    prepare(settings_of(tmp_path))
    assert os.environ[VARIABLE] == "AVX2"
    assert not calls
    assert not can_search(settings_of(tmp_path))


def test_nothing_is_set_where_a_gpu_computes_or_where_rows_are_not_known_to_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = finding(Choice("AVX512,STRICT", 4), monkeypatch)
    on(INTEL, monkeypatch)
    prepare(settings_of(tmp_path, device="cuda"))
    on(replace(INTEL, vendor="AuthenticAMD"), monkeypatch)
    prepare(settings_of(tmp_path))
    assert VARIABLE not in os.environ
    assert not calls
    assert can_search(settings_of(tmp_path)), "a start that finds rows moving may still look"


def test_the_cheapest_setting_that_holds_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    on(INTEL, monkeypatch)
    tried: list[str | None] = []

    def found(costs: dict[str | None, tuple[int | None, float]]) -> Choice:
        tried.clear()
        monkeypatch.setattr(
            search_module, "_try", lambda base, dtype, cbwr: tried.append(cbwr) or costs[cbwr]
        )
        return search("base", "auto")

    strict = {"AVX512,STRICT": (4, 0.03), "AVX2,STRICT": (4, 0.02)}
    assert found({None: (None, 0.0), **strict}) == Choice("AVX2,STRICT", 4)
    assert "COMPATIBLE" not in tried
    assert found({None: (16, 0.01), **strict}) == Choice(None, 16)
    assert found({None: (16, 0.0201), **strict}) == Choice(None, 16), "a twentieth is no gain"
    nothing = dict.fromkeys((None, *strict), (None, 0.0))
    assert found({**nothing, "COMPATIBLE": (8, 0.2)}) == Choice("COMPATIBLE", 8)
    assert found({**nothing, "COMPATIBLE": (None, 0.0)}) == Choice(None, None)


def test_a_base_that_cannot_be_tried_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert search_module._try("/nowhere", "auto", None) == (None, 0.0)
    assert "could not be tried" in caplog.text
