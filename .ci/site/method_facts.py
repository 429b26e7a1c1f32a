"""What the methods' pages say in numbers, and their pictures, from the methods themselves.

python .ci/site/method_facts.py             prints each method's rows of sizes
python .ci/site/method_facts.py --pictures  writes docs/methods/*.png
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from adapters_core.contract.layer import Shape, TensorSpec  # noqa: E402
from adapters_core.contract.method import Method  # noqa: E402
from adapters_core.contract.method_registry import registered  # noqa: E402
from adapters_core.methods.frod import FRoD  # noqa: E402
from adapters_core.methods.tinylora import TinyLoRA  # noqa: E402

FOLDER = ROOT / "docs" / "methods"
#: Base -> the shapes of q and v, and how many layers have them.
BASES = {
    "Llama-2-7B": ([Shape(4096, 4096), Shape(4096, 4096)], 32),
    "SmolLM2-135M": ([Shape(576, 576), Shape(192, 576)], 30),
}
#: Method -> the configs whose sizes its page shows.
CONFIGS: dict[str, list[dict[str, Any]]] = {
    "fourierft": [{"n": 1000}],
    "loca": [{"n": 1000}],
    "waveletft": [{"n": 1000}],
    "c3a": [{"block_size": 64}],
    "shira": [{"r": 1}],
    "frod": [{"sparse_rate": 0.01}, {"sparse_rate": 1e-4}],
    "tinylora": [{"r": 2, "u": 64}],
    "vera": [{"r": 256}],
    "lora": [{"r": 8}],
    "dora": [{"r": 8}],
    "clora": [{"r": 4, "num_spaces": 4}],
}


def rows(name: str) -> Iterator[str]:
    """Yield a page's rows: base, config, numbers that are trained, bytes of the file's tensors."""
    for config in CONFIGS[name]:
        method = registered()[name](**config)
        shown = ", ".join(f"{key} = {value}" for key, value in config.items())
        for base, (shapes, layers) in BASES.items():
            trained, size = totals(method, shapes, layers)
            yield f"| {base} | {shown} | {trained:,} | {_bytes(size)} |"


def totals(method: Method, shapes: list[Shape], layers: int) -> tuple[int, int]:
    """Return the trained numbers and the bytes of all tensors, in float32 as they are written."""
    trained = size = 0
    shared: set[tuple[str, tuple[int, ...]]] = set()
    for layer in range(layers):
        for role, shape in enumerate(shapes):
            for spec in _specs(method, shape, (role, layer, layers)):
                if spec.shared is not None and (spec.shared, spec.shape) in shared:
                    continue
                if spec.shared is not None:
                    shared.add((spec.shared, spec.shape))
                numbers = _count(spec.shape)
                trained += numbers if spec.trained and spec.floating else 0
                size += numbers * _width(method, spec)
    return trained, size


def _specs(method: Method, shape: Shape, place: tuple[int, int, int]) -> list[TensorSpec]:
    """Return what the file holds for a layer; its place is role, number and how many there are."""
    role, layer, layers = place
    if isinstance(method, TinyLoRA):
        method = replace(method, save=False, index=2 * layer + role, count=2 * layers)
    if isinstance(method, FRoD):
        method = replace(method, category=str(role))
    return list(method.fitted(shape).tensors(shape).values())


def _count(shape: tuple[int, ...]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total


def _width(method: Method, spec: TensorSpec) -> int:
    """Return the bytes of one number of a tensor."""
    if spec.floating:
        return 4
    return {"loca": 2, "frod": 1}.get(method.name, 4)


def _bytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def main() -> None:
    """Print sizes, or write pictures."""
    if sys.argv[1:2] == ["--pictures"]:
        from method_pictures import draw_all

        draw_all(Path(sys.argv[2]) if len(sys.argv) > 2 else FOLDER)
        return
    for name in CONFIGS:
        print(name, *rows(name), sep="\n")


if __name__ == "__main__":
    main()
