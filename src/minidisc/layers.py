"""The prunable linear layers of a model, found through its family's architecture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from torch import Tensor, nn

from minidisc.architectures import Architecture, Parts
from minidisc.modeling.narrow import head_rows, head_sizes, inputs_of, modules_at, neuron_rows, outputs_first


@dataclass(frozen=True)
class Rows:
    """A linear map whose rows are heads or neurons.

    They consist of blocks: three for [query | key | value], two for [up | gate], else one. ``sizes`` says how many
    rows a head or neuron has in each.
    """

    linear: Any
    sizes: tuple[int, ...]

    def blocks(self, parameter: Tensor) -> Sequence[Tensor]:
        """Views of the blocks of the weights or the bias, this map's or a wider one's; outputs come first."""
        return split_rows(outputs_first(self.linear, parameter), self.sizes)


@dataclass(frozen=True)
class Part:
    """One attention or one FFN, and the linear maps that its heads or neurons live in.

    ``down`` has ``size`` columns for each of them; ``place`` says which tokens the part sees.
    """

    module: Any
    place: Parts
    rows: list[Rows]
    down: Any
    size: int = 1

    @property
    def width(self) -> int:
        """Its heads or neurons."""
        return inputs_of(self.down) // self.size


def attentions_of(model: Any, architecture: Architecture) -> list[Part]:
    """All attentions of ``model`` (any head, or the base model); in families of plain layers, first layer to last."""
    layout, size = architecture.layout, head_sizes(model.config, architecture.layout)[0]
    return [
        Part(
            module,
            parts,
            [
                Rows(module.get_submodule(path), sizes)
                for path, sizes in head_rows(module, layout, model.config).items()
            ],
            module.get_submodule(architecture.attention_output),
            size,
        )
        for parts in architecture.attentions
        for module in modules_at(model, (parts.path,))
    ]


def ffns_of(model: Any, architecture: Architecture) -> list[Part]:
    """All FFNs of ``model`` (any head, or the base model); in families of plain layers, first layer to last."""
    layout = architecture.layout
    return [
        Part(
            module,
            parts,
            [Rows(module.get_submodule(path), sizes) for path, sizes in neuron_rows(module, layout).items()],
            module.get_submodule(architecture.ffn_down),
        )
        for parts in architecture.ffns
        for module in modules_at(model, (parts.path,))
    ]


def layers_of(model: Any, architecture: Architecture) -> list[Any]:
    """The members of the last list on the way to an attention or FFN of ``model``, decoders' layers too."""
    paths = (parts.path[: parts.path.rindex("*") + 1] for parts in (*architecture.attentions, *architecture.ffns))
    return modules_at(model, tuple(dict.fromkeys(paths)))


def split_rows(parameter: Tensor, sizes: Sequence[int]) -> Sequence[Tensor]:
    """Views of the blocks of rows of a map in which a head or neuron has so many rows of each."""
    count = len(parameter) // sum(sizes)
    return parameter.split([count * size for size in sizes])


def embedding_modules(model: Any, architecture: Architecture) -> list[Any]:
    """The modules that hold the parameters of the embeddings."""
    return [attrgetter(path)(model.base_model) for path in (architecture.embeddings, *architecture.tables)]


def state_to_save(model: nn.Module, state: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """A model's weights, those that have two names, such as an output layer that is the embeddings, once.

    Args:
        model: the model.
        state: weights of it to use instead of its own.
    """
    twice, state = _second_names(model), model.state_dict() if state is None else state
    return {name: weight.contiguous() for name, weight in state.items() if name not in twice}


def whole_state(model: nn.Module, saved: dict[str, Tensor]) -> dict[str, Tensor]:
    """What `state_to_save` gave for a model like this, under all names."""
    return {**saved, **{name: saved[first] for name, first in _second_names(model).items()}}


def _second_names(model: nn.Module) -> dict[str, str]:
    names: dict[int, str] = {}
    first = {name: names.setdefault(id(weight), name) for name, weight in model.state_dict(keep_vars=True).items()}
    return {name: other for name, other in first.items() if other != name}


def set_dropout(model: nn.Module, probability: float) -> None:
    """Give every dropout of ``model`` the same probability, but for that of whole layers, which ends."""
    modules: list[Any] = [*model.modules()]
    for module in modules:
        if isinstance(module, nn.Dropout):
            module.p = probability
        for name, child in module.named_children():
            # ModernBERT has something else in its place where it is 0.
            if "drop" in name and isinstance(child, nn.Identity) and probability:
                setattr(module, name, nn.Dropout(probability).train(module.training))
        # Some classes keep the number itself.
        for name in ("attention_dropout", "dropout"):
            if isinstance(getattr(module, name, None), float | int):
                setattr(module, name, probability)
        # A layer that is left out now and then has no hidden state to compare.
        if hasattr(module, "layerdrop"):
            module.layerdrop = 0.0
