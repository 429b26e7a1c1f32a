"""Small pictures of an adapter's updates: a layer's matrix, and the magnitudes of its spectrum."""

import threading
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor

from adapters_core.format.read import Adapter
from adapters_core.interchange.project import dense_delta
from adapters_core.interchange.spectra import cosine_magnitudes, half_fourier_magnitudes, pooled
from server.adapters.out_of_memory import is_out_of_memory
from server.api.bodies.layers import AdapterLayer, LayerMatrix, LayerPicture
from server.base.resident import ResidentBase
from server.errors import AdapterTooLarge, NotFound, OutOfMemory, Overloaded

#: Of a layer, out * in: 256 MiB as float32, and a second or two.
MAX_CELLS = 1 << 26
#: Pictures that wait for their turn.
MAX_WAITING = 8
#: Of a picture, along one side.
_MOST = 96
_DECADES = 6.0
_MAX_KEPT = 64
_Key = tuple[str, str]


class LayerPictures:
    """Makes pictures, one at a time beside the event loop; the latest ones are kept.

    Args:
        max_cells: of a layer; a larger one is refused.
    """

    def __init__(self, max_cells: int = MAX_CELLS) -> None:
        self._max_cells = max_cells
        self._guard, self._turn = threading.Lock(), threading.Lock()
        self._num_waiting = 0
        self._kept: OrderedDict[_Key, LayerPicture] = OrderedDict()

    def picture(
        self, resident: ResidentBase, digest: str, path: str, read: Callable[[], Adapter]
    ) -> LayerPicture:
        """Return the picture of one layer of the adapter with this digest, which `read` reads.

        Raises:
            NotFound: the adapter does not change such a layer.
            AdapterTooLarge: the layer has too many cells.
            Overloaded: too many others wait.
            OutOfMemory: there was no memory for it.
            AdapterError: the file does not fit the base; or as `BasisCache.get`.
        """
        key = (digest, path)
        with self._guard:
            if key in self._kept:
                return self._kept[key]
            if self._num_waiting >= MAX_WAITING:
                message = f"{MAX_WAITING} pictures are being made already; try again in a moment"
                raise Overloaded(message)
            self._num_waiting += 1
        try:
            with self._turn:
                found = self._drawn(resident, read(), path)
        finally:
            with self._guard:
                self._num_waiting -= 1
        self._keep(key, found)
        return found

    def _keep(self, key: _Key, found: LayerPicture) -> None:
        with self._guard:
            self._kept[key] = found
            while len(self._kept) > _MAX_KEPT:
                self._kept.popitem(last=False)

    def _drawn(self, resident: ResidentBase, adapter: Adapter, path: str) -> LayerPicture:
        if path not in adapter.methods:
            raise NotFound(f"the adapter changes no layer {path[:120]!r}; its /layers lists them")
        out, in_ = resident.spec.layers[path]
        if out * in_ > self._max_cells:
            raise AdapterTooLarge(
                f"{path} has {out} x {in_} numbers; a picture is made of {self._max_cells} at "
                "most: `overtone inspect --plot` draws it from the file"
            )
        try:
            return _pictured(resident, adapter, path)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory("there is no memory for this picture just now") from error


@torch.inference_mode()
def _pictured(resident: ResidentBase, adapter: Adapter, path: str) -> LayerPicture:
    method, bases = adapter.methods[path], resident.basis_cache
    layer = {name: tensor.to(bases.device) for name, tensor in adapter.layers[path].items()}
    delta = dense_delta(method, layer, resident.spec.layers[path], path, bases).float().cpu()
    with_cosines = method.name == "loca"
    spectrum = cosine_magnitudes(delta) if with_cosines else half_fourier_magnitudes(delta)
    return {
        "object": "adapter.layer_picture",
        "target": path,
        "shape": list(delta.shape),
        "norm": float(delta.norm()),
        "delta": _linear(delta),
        "transform": "cosine" if with_cosines else "fourier",
        "spectrum": _in_decades(spectrum),
    }


def _linear(delta: Tensor) -> LayerMatrix:
    """Return a matrix whose 255 is the largest magnitude."""
    small = pooled(delta, _MOST).abs()
    largest = float(small.max())
    return _matrix(small / (largest or 1.0), largest)


def _in_decades(magnitudes: Tensor) -> LayerMatrix:
    """Return a matrix whose 255 is the largest magnitude, and 0 a millionth of it or less."""
    small = pooled(magnitudes, _MOST)
    largest = float(small.max())
    decades = torch.log10(small / (largest or 1.0)).clamp(min=-_DECADES)
    return _matrix(1.0 + decades / _DECADES if largest else torch.zeros_like(small), largest)


def _matrix(shares: Tensor, largest: float) -> LayerMatrix:
    rows: list[list[int]] = (255.0 * shares).round().int().tolist()
    return {"largest": largest, "rows": rows}


def layers_of(adapter: Adapter, resident: ResidentBase) -> list[AdapterLayer]:
    """Return what an adapter has for each layer that it changes, in the base's order."""
    return [
        _layer(adapter, resident, path) for path in resident.spec.layers if path in adapter.methods
    ]


def _layer(adapter: Adapter, resident: ResidentBase, path: str) -> AdapterLayer:
    shape, method = resident.spec.layers[path], adapter.methods[path]
    specs = method.tensors(shape)
    own = [adapter.layers[path][n] for n, s in specs.items() if s.floating and s.shared is None]
    return {
        "target": path,
        "method": method.name,
        "shape": list(shape),
        "num_coefficients": sum(tensor.numel() for tensor in own),
    }
