"""What an adapter has for each layer, and small pictures of its updates."""

from typing import Literal

from typing_extensions import TypedDict


class AdapterLayer(TypedDict):
    """One layer that an adapter changes.

    Args:
        target: path of the module in the base.
        method: of this layer: `replaced` layers have none of the adapter's.
        shape: `[out, in]` of its weight.
        num_coefficients: numbers of its own; what layers share does not count.
    """

    target: str
    method: str
    shape: list[int]
    num_coefficients: int


class AdapterLayers(TypedDict):
    """The layers that a version changes, in the base's order."""

    object: Literal["list"]
    data: list[AdapterLayer]


class LayerMatrix(TypedDict):
    """A matrix of at most 96 x 96 cells; each shows the largest magnitude of a part.

    Args:
        largest: the magnitude that 255 stands for.
        rows: whole numbers from 0 to 255, row by row.
    """

    largest: float
    rows: list[list[int]]


class LayerPicture(TypedDict):
    """The update that a version makes of one layer, and its spectrum.

    Args:
        target: path of the module in the base.
        shape: `[out, in]` of the update.
        norm: root of the sum of its squares.
        delta: magnitudes of the update: 0 is none.
        transform: `fourier`: rows are frequencies along out, zero in the middle, columns those
            along in from zero to the half; `cosine`: both from zero on.
        spectrum: magnitudes of the transform, by their logarithm: 0 is a millionth of the largest,
            or less.
    """

    object: Literal["adapter.layer_picture"]
    target: str
    shape: list[int]
    norm: float
    delta: LayerMatrix
    transform: Literal["fourier", "cosine"]
    spectrum: LayerMatrix
