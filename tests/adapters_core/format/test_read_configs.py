"""Configs of nonsense or malice: refused quickly and by name; nothing else is raised."""

import contextlib
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters_core.errors import AdapterError, InvalidAdapter
from reading_parts import Read, refused
from tiny_bases import change_config

CATASTROPHIC = r"(\w|\w\w|\w\w\w|.)*[!?]"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("target_modules", CATASTROPHIC),
        ("exclude_modules", CATASTROPHIC),
        ("n_frequency_pattern", {CATASTROPHIC: 3}),
    ],
)
def test_a_catastrophic_pattern_is_refused_quickly(
    field: str, value: Any, fourierft_folder: Path, read: Read
) -> None:
    change_config(fourierft_folder, {field: value})
    start = time.thread_time()
    error = refused(read, fourierft_folder, InvalidAdapter)
    assert time.thread_time() - start < 1
    assert error.param == field


def test_many_slow_patterns_together_are_refused(
    fourierft_folder: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is quick enough alone; a config of tens of thousands would hold a worker for hours."""
    patterns = {f"(?:a|{i})": 3 for i in range(50_000)}
    change_config(fourierft_folder, {"n_frequency_pattern": patterns})
    start = time.thread_time()
    error = refused(read, fourierft_folder, InvalidAdapter)
    assert time.thread_time() - start < 4
    assert error.param == "n_frequency_pattern"
    assert "together" in error.message


MALFORMED = {
    "unbalanced": "(",
    "two thousand groups": "(" * 2000 + ")" * 2000,
    "too long": "a" * 5000,
    "huge repeat": "a{99999999999999999999}",
    "not Python's": r"(?P<a>x)(?P>a){1000000}",
    "recursive": "(?R)",
    "bad property": r"\p{foo}",
}


@pytest.mark.parametrize("field", ["target_modules", "exclude_modules", "n_frequency_pattern"])
@pytest.mark.parametrize("case", list(MALFORMED))
def test_malformed_patterns_are_refused(
    case: str, field: str, fourierft_folder: Path, read: Read
) -> None:
    pattern = MALFORMED[case]
    change_config(fourierft_folder, {field: {pattern: 3} if "pattern" in field else pattern})
    assert refused(read, fourierft_folder, InvalidAdapter).param == field


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"target_modules": 3}, "target_modules"),
        ({"target_modules": {"q_proj": 1}}, "target_modules"),
        ({"target_modules": ["q_proj", 3]}, "target_modules"),
        ({"exclude_modules": 3}, "exclude_modules"),
        ({"layers_to_transform": [0], "layers_pattern": 5}, "layers_pattern"),
        ({"layers_to_transform": [0], "layers_pattern": [5]}, "layers_pattern"),
        ({"n_frequency": "30"}, "n_frequency"),
        ({"n_frequency": 30.0}, "n_frequency"),
        ({"n_frequency": True}, "n_frequency"),
        ({"n_frequency": 0}, "n_frequency"),
        ({"n_frequency": 2**62}, "n_frequency"),
        ({"n_frequency_pattern": [1]}, "n_frequency_pattern"),
        ({"n_frequency_pattern": {"q_proj": "x"}}, "n_frequency"),
        ({"scaling": None, "random_loc_seed": -1}, "random_loc_seed"),
        ({"random_loc_seed": 2**32}, "random_loc_seed"),
        ({"scaling": "much"}, "scaling"),
        ({"scaling": float("nan")}, "scaling"),
        ({"scaling": float("inf")}, "scaling"),
        ({"scaling": 10**400}, "scaling"),
        ({"peft_type": None}, "peft_type"),
        ({"peft_type": 3}, "peft_type"),
        ({"\ud800": True}, "\\ud800"),
        ({"revision": float("nan")}, "revision"),
        ({"lora_dropout": float("-inf")}, "lora_dropout"),
        ({"base_model_name_or_path": "a\ud800"}, "base_model_name_or_path"),
        ({"runtime_config": {"\udfff": [1]}}, "runtime_config"),
    ],
)
def test_config_fields_of_nonsense_are_named(
    changes: dict[str, Any], param: str, fourierft_folder: Path, read: Read
) -> None:
    change_config(fourierft_folder, changes)
    error = refused(read, fourierft_folder, InvalidAdapter)
    assert error.param == param
    error.message.encode()


@pytest.mark.parametrize("pattern", ["(layers)", "(?P<idx>layers)", "(?x)layers#", "l.y(e)rs"])
def test_layer_patterns_with_groups_of_their_own_are_no_crash(
    pattern: str, fourierft_folder: Path, read: Read
) -> None:
    change_config(fourierft_folder, {"layers_to_transform": [0, 1], "layers_pattern": [pattern]})
    with contextlib.suppress(InvalidAdapter):
        assert len(read(fourierft_folder).layers) == 4


FIELDS = st.sampled_from(
    [
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "bias"),
        *("n_frequency", "n_frequency_pattern", "scaling", "random_loc_seed", "peft_type"),
        *("r", "fan_in_fan_out", "task_type", "other"),
    ]
)

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 40)
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["q_proj", "v_proj", "all-linear", ".*", "layers", "LORA", "none"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=6) | st.sampled_from(["q_proj", "v_proj"]), inner)
    ),
    max_leaves=5,
)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # regex, of patterns like [[
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # re, of flags in the middle
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=st.dictionaries(FIELDS, VALUES, min_size=1, max_size=4))
def test_arbitrary_configs_raise_nothing_else(
    changes: dict[str, Any], saved_fourierft: dict[str, bytes], tmp_path: Path, read: Read
) -> None:
    for name, content in saved_fourierft.items():
        (tmp_path / name).write_bytes(content)
    change_config(tmp_path, changes)
    try:
        read(tmp_path)
    except AdapterError as error:
        error.message.encode()
