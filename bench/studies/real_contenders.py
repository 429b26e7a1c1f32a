"""The contenders of the study on a real base, part by part; each on one text or on both.

`main` is every method by its preset beside LoRA and PEFT's defaults. PEFT has no default learning
rate: 1e-4 is what its own comparison of methods uses where a method's run does not say otherwise.
The other parts have the papers' pictures: quality over one setting, on the cheap text.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from bench.studies.runs import Contender

_QV = {"target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
_PEFT_RATE = {"learning_rate": 1e-4}
#: Of the cheap text, twice; of docstrings, once.
_TWICE: Mapping[str, Any] = {"n_epochs": 2}

#: Label, method, config. As many numbers as LoRA r=1 has on SmolLM2-135M, or no more: 57,600.
_MAIN: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("base alone", "base", {}),
    ("LoRA r=8", "lora", {"r": 8}),
    ("LoRA r=1", "lora", {"r": 1}),
    ("WaveletFT n=960", "waveletft", {"n_frequency": 960}),
    ("LoCA n=960", "loca", {"n_frequency": 960}),
    ("FourierFT n=960", "fourierft", {"n_frequency": 960}),
    ("CLoRA r=4 K=4", "clora", {"r": 4, "num_spaces": 4}),
    ("FRoD s=0.00116", "frod", {"sparse_rate": 0.00116}),
    ("VeRA r=256", "vera", {"r": 256}),
    ("PEFT LoRA r=8", "peft", {"peft_type": "LORA", "r": 8}),
    ("PEFT FourierFT n=1000", "peft", {"peft_type": "FOURIERFT"}),
    ("PEFT WaveFT n=2592", "peft", {"peft_type": "WAVEFT"}),
    ("CLoRA r=4 K=9", "clora", {"r": 4, "num_spaces": 9}),
    ("FRoD s=0.01", "frod", {"sparse_rate": 0.01}),
    ("DoRA r=1", "dora", {"r": 1}),
    ("C3A b=64", "c3a", {"block_size": 64}),
    ("SHiRA r=1", "shira", {"r": 1}),
    ("TinyLoRA", "tinylora", {}),
)
#: Of `main` those that are run on the cheap text alone.
_CHEAP = (
    "CLoRA r=4 K=9",
    "FRoD s=0.01",
    "VeRA r=256",
    "DoRA r=1",
    "C3A b=64",
    "SHiRA r=1",
    "TinyLoRA",
)
_SPECTRAL = {"FourierFT": "fourierft", "LoCA": "loca", "WaveletFT": "waveletft"}
#: Label of `main` -> multiples of its preset's rate; FRoD's is bounded on a wide base, and so is a
#: multiple of it.
_TIMES = {
    "FourierFT n=960": (0.3, 3.0),
    "LoCA n=960": (0.3, 3.0),
    "WaveletFT n=960": (0.3, 3.0),
    "LoRA r=1": (0.3, 3.0),
    "FRoD s=0.00116": (0.1, 0.3),
}
_SHORT: Mapping[str, Any] = {"max_steps": 16}
_N: Mapping[str, Any] = {"n_frequency": 960}


def _spectral(count: int, scaling: float) -> Mapping[str, Any]:
    """Return FourierFT's config with a scale, so that rates are those of the same steps."""
    return {"n_frequency": count, "scaling": scaling}


#: Label -> method, config, and rates that are compared with the preset's.
_SEARCHED: Mapping[str, tuple[str, Mapping[str, Any], tuple[float, ...]]] = {
    "FourierFT n=200": ("fourierft", _spectral(200, 814.6), (0.0228, 0.05)),
    "FourierFT n=960": (
        "fourierft",
        _spectral(960, 814.6),
        (0.0083, 0.0167, 0.0228, 0.0289, 0.05),
    ),
    "FourierFT n=5000": ("fourierft", _spectral(5000, 391.0), (0.0208, 0.0289, 0.05)),
    "LoCA n=960": ("loca", _N, (0.0167, 0.0289)),
    "WaveletFT n=960": ("waveletft", _N, (0.001,)),
    "LoRA r=1": ("lora", {"r": 1}, (0.0017,)),
    "FRoD s=0.00116": ("frod", {"sparse_rate": 0.00116}, (8e-4, 7.6e-3)),
    "FRoD s=0.01": ("frod", {"sparse_rate": 0.01}, (4e-4, 1.2e-3, 3.6e-3)),
}
#: Positions are learned in runs of more than a hundred steps: these have 240.
_LONG = {"n_epochs": 6}


def _main() -> Iterable[Contender]:
    for what, method, config in _MAIN:
        own = {**_QV, **config} if method == "peft" else config
        hyper = _PEFT_RATE if method == "peft" else {}
        yield _one(what, method, own, **hyper)
        if what not in _CHEAP:
            yield Contender(f"docstrings: {what}", method, own, hyper, "docstrings")


def _one(what: str, method: str, config: Mapping[str, Any], **hyper: Any) -> Contender:
    return Contender(f"subjects: {what}", method, config, {**_TWICE, **hyper}, "subjects")


def _numbers() -> Iterable[Contender]:
    for n in (50, 200, 960, 5000):
        for name, method in _SPECTRAL.items():
            yield _one(f"{name} n={n}", method, {"n_frequency": n})


def _rates() -> Iterable[Contender]:
    for what, method, config in _MAIN:
        for times in _TIMES.get(what, ()):
            yield _one(f"{what}, rate x{times:g}", method, config, learning_rate_multiplier=times)


def _places() -> Iterable[Contender]:
    for n in (50, 960):
        yield _one(f"LoCA n={n}, places learned", "loca", {"n_frequency": n}, **_LONG)
        fixed = _one(f"LoCA n={n}, places fixed", "loca", {"n_frequency": n}, **_LONG)
        yield replace(fixed, is_fixed=True)


def _levels() -> Iterable[Contender]:
    for levels in (1, 2, 3, 5, 7):
        config: dict[str, Any] = {"n_frequency": 960, "num_levels": levels}
        if levels > 1:  # PEFT's WAVEFT has one
            config["peft_type"] = "WAVELETFT"
        yield _one(f"WaveletFT {levels} level{'s' * (levels > 1)}", "waveletft", config)
    for family in ("db4", "sym4"):
        own: dict[str, Any] = {"n_frequency": 960, "wavelet_family": family}
        yield _one(f"WaveletFT {family}", "waveletft", own)


def _sparsity() -> Iterable[Contender]:
    for rate in (0.0001, 0.00116, 0.004, 0.01, 0.03):
        yield _one(f"FRoD s={rate:g}", "frod", {"sparse_rate": rate})


def _clora() -> Iterable[Contender]:
    for spaces in (1, 2, 4, 9):
        yield _one(f"CLoRA r=4 K={spaces}", "clora", {"r": 4, "num_spaces": spaces})
    for weight in (0.0, 1.0):
        config = {"r": 4, "num_spaces": 4, "sade_weight": weight}
        yield _one(f"CLoRA r=4 K=4, SADE {weight:g}", "clora", config)


def _presets() -> Iterable[Contender]:
    """Yield presets and rates beside them, in short runs on data that no other part sees."""
    for text in ("subjects-tuning", "docstrings-tuning"):
        for what, (method, config, rates) in _SEARCHED.items():
            yield Contender(f"{text}: {what}", method, config, _SHORT, text)
            for rate in rates:
                hyper = {**_SHORT, "learning_rate": rate}
                yield Contender(f"{text}: {what}, {rate:g}", method, config, hyper, text)


#: Name of a part -> its contenders.
PARTS: Mapping[str, tuple[Contender, ...]] = {
    "main": tuple(_main()),
    "numbers": tuple(_numbers()),
    "rates": tuple(_rates()),
    "places": tuple(_places()),
    "levels": tuple(_levels()),
    "sparsity": tuple(_sparsity()),
    "clora": tuple(_clora()),
    "presets": tuple(_presets()),
}


def every() -> tuple[Contender, ...]:
    """Return the contenders of all parts, one that is in several once."""
    found = {one.what: one for own in PARTS.values() for one in own}
    return tuple(found.values())
