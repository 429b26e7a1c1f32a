"""Heads per sequence: a classifier's last modules, each sequence through its own adapter's."""

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from adapters_core.base.heads import Head, HeadSpec
from adapters_core.contract.rows import padding_of
from adapters_core.layers.inject import Injection


@dataclass
class HeadSwitch:
    """The heads of the running batch, one per sequence; None stands for the base's own."""

    heads: Sequence[Head | None] = ()


class SwitchedHead(nn.Module):
    """Stands in for one module of the head.

    Args:
        base: the base's module, with its linears injected.
        form: a copy without injection, run with the adapters' own values.
        path: of the module in the model.
        switch: holds the running batch's heads.
    """

    def __init__(self, base: nn.Module, form: nn.Module, path: str, switch: HeadSwitch) -> None:
        super().__init__()
        self.base = base
        self._forms = (form,)  # no submodule: its parameters are the base's own
        self._prefix = path + "."
        self._switch = switch

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return `[B, ..., width]` for x `[B, ...]`; rows with fewer labels end in zeros."""
        groups = self._groups()
        if not groups:
            result: Tensor = self.base(x, *args, **kwargs)
            return result
        parts = [
            (rows, self._own(values, x, rows, args, kwargs)) for values, rows in groups.values()
        ]
        replaced = {row for rows, _ in parts for row in rows}
        others = [row for row in range(x.shape[0]) if row not in replaced]
        if others:  # its linears' plan is for the whole batch's rows
            parts.append((others, self.base(x, *args, **kwargs)[others]))
        return _joined(x.shape[0], parts)

    def _groups(self) -> dict[int, tuple[dict[str, Tensor], list[int]]]:
        """Return the values of each head that replaces something here, with its rows."""
        rows: defaultdict[int, list[int]] = defaultdict(list)
        values: dict[int, dict[str, Tensor]] = {}
        for number, head in enumerate(self._switch.heads):
            if head is None:
                continue
            if id(head) not in values:
                values[id(head)] = self._mine(head.tensors)
            if values[id(head)]:
                rows[id(head)].append(number)
        return {key: (values[key], mine) for key, mine in rows.items()}

    def _mine(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        prefix = self._prefix
        return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}

    def _own(
        self,
        values: dict[str, Tensor],
        x: Tensor,
        rows: list[int],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Tensor:
        """Return one head's answer for its rows, computed over a multiple of four."""
        padded = rows + [rows[-1]] * padding_of(len(rows))
        index = torch.tensor(padded, device=x.device)
        answer: Tensor = functional_call(self._forms[0], values, (x[index], *args), kwargs)
        return answer[: len(rows)]


def _joined(num_rows: int, parts: list[tuple[list[int], Tensor]]) -> Tensor:
    first, width = parts[0][1], max(part.shape[-1] for _, part in parts)
    whole = first.new_zeros(num_rows, *first.shape[1:-1], width)
    for rows, part in parts:
        whole[torch.tensor(rows, device=whole.device), ..., : part.shape[-1]] = part
    return whole


def plain_heads(model: nn.Module, spec: HeadSpec) -> dict[str, nn.Module]:
    """Return copies of the head's modules by path, on the same parameters; before injection."""
    paths = dict.fromkeys(name.partition(".")[0] for name in spec.parameters)
    return {path: _copied(model.get_submodule(path)) for path in paths}


def _copied(module: nn.Module) -> nn.Module:
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, shared)


def switch_heads(injection: Injection, forms: Mapping[str, nn.Module]) -> HeadSwitch:
    """Put a `SwitchedHead` in place of each of the model's head modules."""
    switch = HeadSwitch()
    for path, form in forms.items():
        base = injection.model.get_submodule(path)
        setattr(injection.model, path, SwitchedHead(base, form, path, switch))
    return switch
