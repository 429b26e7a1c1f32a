"""Images: a ViT that knows the digits 0 to 4 learns 5 to 9, from scikit-learn's 8 x 8 pictures.

What: held-out accuracy of every method by its preset alone, beside the head alone, LoRA, all
weights, and PEFT at its defaults. The base is trained here, all its weights, in some seconds; 150
pictures of the digits 5 to 9 are learned, all others are held out.
Why: presets that were found on texts 384 wide are to hold on images 64 wide.

    overtone bench training_digits [--seeds 3] [--only NAME] [--picture FILE] [--json FILE]
"""

import io
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.image import imsave
from sklearn.datasets import load_digits
from torch import Tensor
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from bench.studies.main import study_main
from bench.studies.runs import Contender, Study
from registry.jobs.spec import Hyperparameters
from trainer.base import LoadedBase, load
from trainer.interfaces import JobFiles

_WIDTH, _SIDE, _KNOWN = 64, 8, 5
_TRAIN, _TUNE = 150, 250
_STEPS, _BATCH = 400, 64

_QV = ["q_proj", "v_proj"]
_PEFT = {"target_modules": _QV, "task_type": None}
_HYPER = Hyperparameters(n_epochs=20, batch_size=16, checkpoint_every_s=1e9, checkpoint_samples=0)

CONTENDERS = (
    Contender("head alone", "head"),
    Contender("LoRA r=1", "lora", {"r": 1}),
    Contender("FourierFT n=128", "fourierft", {"n_frequency": 128}),
    Contender("LoCA n=128", "loca", {"n_frequency": 128}),
    Contender("WaveletFT n=128", "waveletft", {"n_frequency": 128}),
    Contender("FRoD s=0.015", "frod", {"sparse_rate": 0.015}),
    Contender("CLoRA r=2 K=3", "clora", {"r": 2, "num_spaces": 3}),
    Contender("VeRA r=64", "vera", {"r": 64}),
    Contender("C3A b=32", "c3a", {"block_size": 32}),
    Contender("SHiRA r=1", "shira", {"r": 1}),
    Contender("TinyLoRA", "tinylora"),
    Contender("DoRA r=1", "dora", {"r": 1}),
    Contender("FourierFT n=1000", "fourierft", {"n_frequency": 1000}),
    Contender("LoRA r=8", "lora", {"r": 8}),
    Contender("all weights", "full", hyper={"learning_rate": 1e-3}),
    Contender("PEFT FourierFT n=1000", "peft", _PEFT | {"peft_type": "FOURIERFT"}),
)


def prepare(work: Path, examples: int | None) -> None:
    """Write the pictures of the digits 5 to 9 and the base that knows the others."""
    write_files(work, examples)
    make_base(work / "base", _STEPS if examples is None else examples)


def write_files(work: Path, examples: int | None, tune: bool = False) -> JobFiles:
    """Write the two files of the study and return them; `tune` holds out what presets may see."""
    found = load_digits()
    is_new = found.target >= _KNOWN
    order = np.random.default_rng(0).permutation(int(is_new.sum()))
    images, labels = found.images[is_new][order], found.target[is_new][order]
    train = slice(0, _TRAIN)
    held = slice(_TRAIN, _TRAIN + _TUNE) if tune else slice(_TRAIN + _TUNE, None)
    _write(work / "train.zip", images[train][:examples], labels[train][:examples])
    _write(work / "held.zip", images[held][:examples], labels[held][:examples])
    return files_in(work)


def files_in(work: Path, contender: Contender | None = None) -> JobFiles:
    """Return the two zips."""
    return JobFiles(work / "train.zip", work / "held.zip")


def _write(file: Path, images: Iterable[Any], labels: Iterable[Any]) -> None:
    """Write grey pictures of 0..16 as a zip of PNG, a folder a label."""
    with zipfile.ZipFile(file, "w") as archive:
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            png = io.BytesIO()
            imsave(png, image, vmin=0, vmax=16, cmap="gray", format="png")
            archive.writestr(f"{label}/{number:04}.png", png.getvalue())


def make_base(folder: Path, steps: int) -> None:
    """Train a ViT on the digits 0 to 4 and write it as Hugging Face has it, without a head."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=_WIDTH,
        intermediate_size=2 * _WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=_SIDE,
        patch_size=2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    config.num_labels = _KNOWN
    model: Any = ViTForImageClassification(config).train()
    x, y = _known_digits()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    for _ in range(steps):
        picked = torch.randperm(len(y))[:_BATCH]
        optimizer.zero_grad()
        F.cross_entropy(model(pixel_values=x[picked]).logits, y[picked]).backward()
        optimizer.step()
    model.eval().save_pretrained(folder)
    ViTImageProcessorPil(size={"height": _SIDE, "width": _SIDE}).save_pretrained(folder)


def _known_digits() -> tuple[Tensor, Tensor]:
    """Return pixels as the processor makes them, `[N, 3, 8, 8]` in -1..1, and classes `[N]`."""
    found = load_digits()
    is_known = found.target < _KNOWN
    grey = torch.from_numpy(found.images[is_known]).float() / 8 - 1
    return grey[:, None].expand(-1, 3, -1, -1), torch.from_numpy(found.target[is_known]).long()


def base_in(work: Path) -> LoadedBase:
    """Load the base."""
    return load(work / "base", "image_classification", "digits", device="cpu")


STUDY = Study(
    "training_digits",
    "image_classification",
    _HYPER,
    "accuracy",
    CONTENDERS,
    prepare,
    base_in,
    files_in,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    study_main(STUDY, str(__doc__), arguments)
