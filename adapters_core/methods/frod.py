"""FRoD: the base's weights in a basis that all layers of one role share, stretched and mixed there.

    delta = U (S + diag(lambda - lambda0)) V^T,      base weight = U diag(lambda0) V^T

FRoD, AAAI 2026, arXiv:2512.23485. The paper's body could not be had and none of its numbers is
claimed: what is computed is what PEFT's FRoD computes, W' = U (S + diag(lambda)) V^T. S is sparse,
off the diagonal, at positions common to a category of layers; lambda and the values of S are
trained. frod/joint.py has the basis. Choices on which codes differ: PEFT puts W' in the place of
the base's weight, and the authors' later code adds W' to it; here lambdas are subtracted, not
weights, so a fresh adapter is exactly zero. A position that stands twice gets the sum, as in PEFT;
one on the diagonal or outside is refused. PEFT rounds U and V to a base in half precision; here U
is float32 and V what the file says. With sparse_rate 0, PEFT saves empty tensors, which no file
here may have.

Two forms of one file, both PEFT's directory:

* `save_projection` true: `frod_V`, `frod_s_indices` and `frod_s_size` once a category. Any V that
  gives back the base's weights is served.
* false: neither. PEFT then computes V anew, which gives another V on another machine, and lambda
  and S mean nothing there; its files of this form are refused. Ours carry `frod_digest`, the sha256
  of V and of the positions, a category, and are served where the basis of all layers that the base
  has in the category has that very digest. This is what a fresh adapter is. PEFT reads the file,
  and rightly if it adapts all layers of each of its categories and V has the same bits there.

The positions are the seeded ones of frod/off_diagonal.py. A layer holds N + max(1, N^2 rate)
numbers, as float32 in the small form, N being its input's width:

    sparse_rate              0 or one  1e-4      1e-2
    N = 1024                  4.1 kB   4.5 kB      46 kB
    N = 4096                   16 kB    23 kB     687 kB
    N = 4096, 64 layers       1.0 MB   1.5 MB      44 MB

U and V of an adapted layer stay in memory, once for all adapters; the base's own are kept on disk
(frod/canonical.py).

Fast ways. V^T x is one product, then every row goes through its own diagonal and values at the
common positions (kernels/gathered.py), and U is one product again.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from adapters_core.contract.method import (
    BankPart,
    Coefficients,
    FileView,
    KernelGroup,
    Method,
    PackedLayer,
    Rows,
    Shape,
    Site,
    TensorSpec,
)
from adapters_core.contract.method_registry import register
from adapters_core.contract.peft_config import PeftConfig
from adapters_core.contract.rows import pad_rows
from adapters_core.errors import InvalidAdapter
from adapters_core.frod.canonical import canonical
from adapters_core.frod.in_file import (
    DIGEST,
    DIGEST_BYTES,
    INDICES,
    LAMBDA,
    SIZE,
    VALUES,
    V,
    check_positions_digest,
    check_small,
    check_v_digest,
    check_widths,
    digest_tensor,
    said_digests,
    saved_positions,
)
from adapters_core.frod.joint import REGULARISATION, Joint, category_of, digest_of
from adapters_core.frod.off_diagonal import num_positions, num_words, seeded_positions
from adapters_core.frod.shared import FRoDBasis, basis_of
from adapters_core.kernels import gathered_rows


@register
@dataclass(frozen=True)
class FRoD(Method):
    """Args: sparse_rate: of S's cells. seed: chooses them. saved: V and positions are in the file.

    regularisation: with which a saved V was made. The rest is what a layer is told of its category:
    its name, how many words of the generator come before its positions, the digests and the
    """

    sparse_rate: float = 0.01
    seed: int = 0
    saved: bool = False
    regularisation: float = REGULARISATION
    category: str = ""
    skip: int = 0
    v_digest: str = ""
    positions_sha256: str = ""
    positions: Tensor | None = field(default=None, compare=False, repr=False)

    name: ClassVar[str] = "frod"
    peft_type: ClassVar[str] = "FROD"
    shared_prefixes: ClassVar[tuple[str, ...]] = tuple(
        f"{name}." for name in (V, INDICES, SIZE, DIGEST)
    )
    needs_base: ClassVar[bool] = True
    dropout_field: ClassVar[str | None] = "frod_dropout"
    #: The basis that is computed here has this one.
    training_only: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "regularization_alpha": (REGULARISATION,)
    }
    peft_fields: ClassVar[frozenset[str]] = frozenset(
        {"sparse_rate", "projection_prng_key", "save_projection", "regularization_alpha"}
    )

    def __post_init__(self) -> None:
        if not 0 <= self.sparse_rate <= 1:
            raise InvalidAdapter(f"sparse_rate = {self.sparse_rate} is not in 0..1", "sparse_rate")
        if not -(2**63) <= self.seed < 2**64:
            message = f"projection_prng_key = {self.seed} has more than 64 bits"
            raise InvalidAdapter(message, "projection_prng_key")

    # The file.

    @classmethod
    def from_peft(cls, config: PeftConfig, target: str, tensors: Mapping[str, Any]) -> Self:
        return cls(
            config.number("sparse_rate", 0.01),
            config.integer("projection_prng_key", 0),
            config.flag("save_projection", True),
            config.number("regularization_alpha", REGULARISATION),
            category_of(target),
        )

    @classmethod
    def of_file(cls, view: FileView) -> dict[str, Method]:
        shapes = {target: view.shapes[target] for target in view.tensors}
        common = cls.from_peft(view.config, next(iter(shapes), ""), {})
        if not common.saved:
            check_small(view, common.regularisation)
        return dict(common._in_categories(shapes))

    def _in_categories(self, shapes: Mapping[str, Shape]) -> "dict[str, FRoD]":
        """Return target -> this method as the layer's category has it, still without positions."""
        widths: dict[str, int] = {}
        for target, shape in shapes.items():
            check_widths(widths, target, shape.in_)
        made, skip = {}, 0
        for category, width in sorted(widths.items()):
            made[category] = replace(self, category=category, skip=skip)
            skip += num_words(width, self.sparse_rate)
        return {target: made[category_of(target)] for target in shapes}

    @classmethod
    def with_values(
        cls, methods: Mapping[str, Method], layers: Mapping[str, Coefficients]
    ) -> Mapping[str, Method]:
        known: dict[str, FRoD] = {}
        for target, method in methods.items():
            assert isinstance(method, FRoD)
            if method.category not in known:
                known[method.category] = method._of_values(layers[target])
        return {target: known[category_of(target)] for target in methods}

    def _of_values(self, layer: Coefficients) -> "FRoD":
        """Return this method with the positions and digests that the file gives its category."""
        if self.saved:
            return replace(
                self._with(saved_positions(layer, self.category)), v_digest=digest_of(layer[V])
            )
        v_digest, positions_digest = said_digests(layer, self.category)
        made = replace(self._with_seeded(layer[LAMBDA].numel()), v_digest=v_digest)
        check_positions_digest(made.positions_sha256, positions_digest, self.category)
        return made

    def _with(self, positions: Tensor) -> "FRoD":
        return replace(self, positions=positions, positions_sha256=digest_of(positions))

    def _with_seeded(self, width: int) -> "FRoD":
        """Return this method with the positions that its seed gives a category so wide."""
        return self._with(seeded_positions(self.seed, self.skip, self._count(width), width))

    def of_layers(self, shapes: Mapping[str, Shape]) -> dict[str, Method]:
        made: dict[str, FRoD] = {}
        for target, method in self._in_categories(shapes).items():
            if method.category not in made:
                made[method.category] = method._with_seeded(shapes[target].in_)
        return {target: made[category_of(target)] for target in shapes}

    def to_peft(self) -> dict[str, Any]:
        return {
            "sparse_rate": self.sparse_rate,
            "projection_prng_key": self.seed,
            "save_projection": self.saved,
            "regularization_alpha": self.regularisation,
        }

    def config(self) -> dict[str, Any]:
        return self.to_peft()

    def tensors(self, shape: Shape) -> dict[str, TensorSpec]:
        n, width = self._count(shape.in_), shape.in_
        specs = {LAMBDA: TensorSpec((width,))}
        if n:  # no tensor of a file is empty
            specs[VALUES] = TensorSpec((n,))
        if not self.saved:
            return specs | {DIGEST: self._shared(DIGEST, (2, DIGEST_BYTES), floating=False)}
        if n:
            specs[INDICES] = self._shared(INDICES, (2, n), floating=False)
        specs[SIZE] = self._shared(SIZE, (2,), floating=False)
        return specs | {V: self._shared(V, (width, width), floating=True)}

    def _shared(self, name: str, shape: tuple[int, ...], floating: bool) -> TensorSpec:
        return TensorSpec(shape, floating, trained=False, shared=f"{name}.{self.category}")

    def init(
        self, shape: Shape, generator: torch.Generator, basis: FRoDBasis | None = None
    ) -> dict[str, Tensor]:
        assert basis is not None, "lambda comes from the base"
        fresh = {
            LAMBDA: basis.own.lambda0.cpu().clone(),
            VALUES: torch.zeros(self._count(shape.in_)),
            DIGEST: digest_tensor(basis.joint.digest, basis.positions_digest),
            INDICES: basis.positions.cpu(),
            SIZE: torch.tensor([shape.in_, shape.in_]),
            V: basis.v.float().cpu(),
        }
        return {name: fresh[name] for name in self.tensors(shape)}

    def is_zero(self, coefficients: Coefficients) -> bool:
        return False  # the lambda that changes nothing is the base's, not in the file

    # The meaning, and the fast ways.

    def signature(self, shape: Shape) -> Hashable:
        return (self.name, self.v_digest or f"canonical {self.category}", self.positions_sha256)

    def basis(
        self, shape: Shape, device: torch.device, dtype: torch.dtype, site: Site | None = None
    ) -> FRoDBasis:
        assert site is not None, f"{self.name} needs the base's weights"
        assert self.positions is not None, "of_layers or with_values gives the positions"
        joint = self._joint(site)
        return basis_of(site, joint, self.positions, self.positions_sha256, device, dtype)

    def _joint(self, site: Site) -> Joint:
        """Return V of the file, or the base's own where it is the one that the file names."""
        if self.saved and V in site.layer:
            return Joint(site.layer[V], self.v_digest or digest_of(site.layer[V]))
        joint = canonical(site.base, self.category)
        check_v_digest(joint.digest, self.v_digest, self.category)
        return joint

    def delta(self, coefficients: Coefficients, shape: Shape, basis: FRoDBasis) -> Tensor:
        mixed = basis.mixed(coefficients[LAMBDA], coefficients.get(VALUES))
        return (basis.u @ mixed).float()

    def training_apply(self, x: Tensor, trained: Coefficients, shape: Shape, basis: Any) -> Tensor:
        return basis.through(x, trained[LAMBDA], trained.get(VALUES))

    def cells(
        self,
        coefficients: Coefficients,
        shape: Shape,
        rows: Tensor,
        cols: Tensor,
        basis: Any = None,
    ) -> Tensor:
        u, v = basis.u.double()[rows], basis.v.double()[cols]  # each [cells, in]
        stretch = coefficients[LAMBDA].double() - basis.own.lambda0.double()
        sums = (u * v) @ stretch
        if VALUES in coefficients:
            mixed = u[:, basis.positions[0]] * v[:, basis.positions[1]]
            sums = sums + mixed @ coefficients[VALUES].double()
        return sums

    def packed_length(self, shape: Shape) -> int:
        return shape.in_ + self._count(shape.in_)

    def pack(self, coefficients: Coefficients, shape: Shape, basis: FRoDBasis) -> Tensor:
        stretch = basis.stretch(coefficients[LAMBDA]).float()
        if VALUES not in coefficients:
            return stretch
        return torch.cat([stretch, coefficients[VALUES].float().to(stretch.device)])

    def analysis_key(self, shape: Shape) -> Hashable:
        return (self.name, self.v_digest or f"canonical {self.category}")

    def analyse(self, x: Tensor, shape: Shape, basis: FRoDBasis) -> Tensor:
        """Return x V of the rows and of rows that pad them: `[T + ..., in_]`."""
        return F.linear(pad_rows(x.to(basis.dtype)), basis.v.T)

    def apply(
        self, x: Tensor, layer: PackedLayer, rows: Rows, shape: Shape, basis: FRoDBasis
    ) -> Tensor:
        mixed = gathered_rows(x, layer, rows.padded_slots, basis.cols, basis.rows, shape.in_)
        return F.linear(mixed, basis.u)[: rows.slots.shape[0]]

    @classmethod
    def kernels(cls, parts: Sequence[BankPart]) -> KernelGroup | None:
        bases: list[FRoDBasis] = [part.basis for part in parts]
        cores = [basis.core for basis in bases if basis.core is not None]
        if len(cores) < len(parts) or any(basis.dtype != torch.float32 for basis in bases):
            return None
        from adapters_core.gpu_kernels.gathered_group import Mixture, MixtureGroup

        linears = [
            Mixture(part.basis.u, core, part.offset)
            for part, core in zip(parts, cores, strict=True)
        ]
        return MixtureGroup(bases[0].v, linears)

    def _count(self, width: int) -> int:
        return num_positions(width, self.sparse_rate)
