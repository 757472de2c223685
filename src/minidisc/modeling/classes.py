"""The classes of small models, and their registration with transformers' Auto classes."""

from __future__ import annotations

import copy
import inspect
import types
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)
from transformers.initialization import no_init_weights
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
)

from minidisc.architectures import FAMILIES, STUDENT_PREFIX, architecture_for
from minidisc.files import new_file
from minidisc.modeling import narrow, t5_classifiers

CODE_FILE = "modeling_minidisc.py"
_PREFIX = "MiniDisc"
HEADS: dict[Any, Any] = {
    AutoModelForSequenceClassification: MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModelForTokenClassification: MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    AutoModelForCausalLM: MODEL_FOR_CAUSAL_LM_MAPPING,
}
"""The Auto classes whose models can be made small, and the class that each has for a full-width configuration."""


def heads_of(family: str) -> dict[Any, Any]:
    """The Auto classes in ``HEADS`` that a family has a full-width class for, and that class."""
    config = CONFIG_MAPPING[family]
    return {
        auto: models[config]
        for auto, models in HEADS.items()
        # The library has such classes for encoders too.
        if config in models and (auto is not AutoModelForCausalLM or architecture_for(family).generates)
    }


class _SavedWithCode:
    """Mixed in before a small model's class: whoever gets what it has saved can load that without minidisc."""

    def save_pretrained(self, save_directory: Any, is_main_process: bool = True, *args: Any, **kwargs: Any) -> None:
        """Like transformers', whose configuration names the code file."""
        super().save_pretrained(save_directory, is_main_process, *args, **kwargs)  # type: ignore[misc]
        if is_main_process:
            _write_code_file(Path(save_directory), self)

    def _upload_modified_files(self, working_dir: Any, *args: Any, **kwargs: Any) -> Any:
        # What transformers' save_pretrained does last if it is asked to push.
        _write_code_file(Path(working_dir), self)
        return super()._upload_modified_files(working_dir, *args, **kwargs)  # type: ignore[misc]


@cache
def narrow_config_class(family: str) -> Any:
    """The configuration class of a family's small models, whatever their head; the first of them registers these."""
    base: Any = CONFIG_MAPPING[family]

    def new(cls: Any, *_: Any, **__: Any) -> Any:
        _register_models(family)
        return base.__new__(cls)

    return types.new_class(
        _class_name(base),
        (base,),
        exec_body=lambda namespace: namespace.update(
            __module__=__name__,
            __annotations__={
                "heads_per_layer": list | None,
                "neurons_per_layer": list | None,
                "embedding_rank": int | None,
            },
            model_type=STUDENT_PREFIX + family,
            heads_per_layer=None,
            neurons_per_layer=None,
            embedding_rank=None,
            # Not the one of `minidisc.modeling.t5_classifiers`: a small model's code is another.
            _auto_class=None,
            __new__=new,
        ),
    )


@cache
def narrow_model_class(family: str, head: Any) -> Any:
    """The class of a family's small models with a head, one of the Auto classes in `heads_of`."""
    base: Any = heads_of(family)[head]
    config, layout = narrow_config_class(family), architecture_for(family).layout
    return types.new_class(
        _class_name(base),
        (_SavedWithCode, narrow.NarrowModel, base),
        exec_body=lambda namespace: namespace.update(
            __module__=__name__, config_class=config, layout=layout, _auto_class=None
        ),
    )


def __getattr__(name: str) -> Any:
    """The class of a small model or of its configuration, which pickle looks for here by its name."""
    for family in FAMILIES if name.startswith(_PREFIX) else ():
        models = (narrow_model_class(family, head) for head in heads_of(family))
        for made in (narrow_config_class(family), *models):
            if made.__name__ == name:
                return made
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def register() -> None:
    """Teach transformers' Auto classes every ``model_type`` that they lack; harmless when repeated.

    A family's models follow with its first configuration, which every way to load one begins with: to import the code
    of all families takes half a second, and one that cannot be imported would stand in the way of the others.
    """
    for config, model in t5_classifiers.CLASSIFIERS.items():
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoModelForSequenceClassification.register(config, model, exist_ok=True)
        # Whoever saves such a model saves its code beside it.
        config.register_for_auto_class()
        model.register_for_auto_class(AutoModelForSequenceClassification.__name__)
    for family in FAMILIES:
        config = narrow_config_class(family)
        AutoConfig.register(config.model_type, config, exist_ok=True)


@cache
def _register_models(family: str) -> None:
    for head in heads_of(family):
        head.register(narrow_config_class(family), narrow_model_class(family, head), exist_ok=True)


def build_narrow(teacher: Any, heads: tuple[int, ...], neurons: tuple[int, ...], **changes: Any) -> Any:
    """A small model with the family, the head and the configuration of ``teacher``, and weights yet to be set.

    Args:
        teacher: a full-width model, or one that is narrow already.
        heads: attention heads of each layer.
        neurons: FFN neurons of each layer.
        changes: settings of the configuration that differ from the teacher's.
    """
    family = teacher.config.model_type.removeprefix(STUDENT_PREFIX)
    head = next(head for head, model_class in heads_of(family).items() if isinstance(teacher, model_class))
    config_class, model_class = narrow_config_class(family), narrow_model_class(family, head)
    values = {k: v for k, v in teacher.config.to_dict().items() if k not in _NOT_INHERITED}
    widths = {"heads_per_layer": list(heads), "neurons_per_layer": list(neurons)}
    config = config_class(**{**values, **changes}, **widths)
    config.architectures = [model_class.__name__]
    module = CODE_FILE.removesuffix(".py")
    config.auto_map = {
        "AutoConfig": f"{module}.{config_class.__name__}",
        head.__name__: f"{module}.{model_class.__name__}",
    }
    # Full width comes first: random weights would be written to memory that is not touched otherwise.
    with torch.random.fork_rng(devices=[]), no_init_weights():
        model = model_class._from_config(config, attn_implementation=teacher.config._attn_implementation)
    model.tie_weights()
    if model.can_generate():
        model.generation_config = copy.deepcopy(teacher.generation_config)
    model.saved_with_cache = getattr(teacher, "saved_with_cache", False)
    return model


def build_plain(model: Any) -> Any | None:
    """The model of transformers' own that is the same as a small one, if its family has one of these widths.

    Args:
        model: small; not changed.

    Returns:
        A model that shares the weights of ``model``; None where layers differ in their widths, where the embeddings
        are of low rank, or where the family's configuration cannot say that heads times their size is not the hidden
        size, or not with so many heads.
    """
    config = model.config
    config_of_plain = plain_config(config, config.heads_per_layer, config.neurons_per_layer)
    if config_of_plain is None:
        return None
    base_model: Any = type(model).__bases__[-1]
    with torch.random.fork_rng(devices=[]):
        plain = base_model._from_config(config_of_plain, attn_implementation=config._attn_implementation)
    plain.load_state_dict(model.state_dict())
    if model.can_generate():
        plain.generation_config = copy.deepcopy(model.generation_config)
    plain.saved_with_cache = getattr(model, "saved_with_cache", False)
    return plain.eval()


def plain_config(config: Any, heads_per_layer: Sequence[int], neurons_per_layer: Sequence[int]) -> Any | None:
    """The configuration of transformers' own that has these widths, if there is one (see `build_plain`).

    Args:
        config: of a small model, or of the teacher that it is cut from; not changed.
        heads_per_layer: attention heads of each layer.
        neurons_per_layer: FFN neurons of each layer.
    """
    architecture = architecture_for(config.model_type.removeprefix(STUDENT_PREFIX))
    widths = set(zip(heads_per_layer, neurons_per_layer, strict=False))
    heads, neurons = next(iter(widths))
    thin = getattr(config, "embedding_rank", None)
    if len(widths) > 1 or thin or not (heads and neurons and architecture.plain_if_uniform):
        return None
    is_small = config.model_type.startswith(STUDENT_PREFIX)
    base_config: Any = type(config).__bases__[0] if is_small else type(config)
    _, size = narrow.head_sizes(config, architecture.layout)
    queries = getattr(config, architecture.heads) // getattr(config, architecture.prunable_heads)
    values = {k: v for k, v in config.to_dict().items() if k not in _NOT_INHERITED}
    changes = {
        architecture.heads: queries * heads,
        architecture.prunable_heads: heads,
        architecture.neurons: neurons,
        architecture.head_size: size,
    }
    try:
        return base_config(**{**values, **changes})
    except StrictDataclassError:
        # Some take only numbers of heads that the hidden size is a multiple of, or work out from it what a head has.
        return None


_NOT_INHERITED = (
    "model_type",
    "architectures",
    "auto_map",
    "transformers_version",
    "heads_per_layer",
    "neurons_per_layer",
)


def _write_code_file(folder: Path, model: Any) -> None:
    """Put the self-contained code of a small model beside its weights."""
    model_class, config = type(model), type(model.config)
    base_config, base_model = config.__bases__[0], model_class.__bases__[-1]
    layout = "".join(f"        {key!r}: {value!r},\n" for key, value in model_class.layout.items())
    classes = f'''

class {config.__name__}({base_config.__name__}):
    """{base_config.__name__} of a model with its own width in every layer."""

    model_type = {config.model_type!r}
    heads_per_layer: list | None = None
    neurons_per_layer: list | None = None
    embedding_rank: int | None = None


class {model_class.__name__}(NarrowModel, {base_model.__name__}):
    """{base_model.__name__} with its own width in every layer."""

    config_class = {config.__name__}
    layout = {{
{layout}    }}
'''
    source = inspect.getsource(narrow)
    if base_config in t5_classifiers.CLASSIFIERS:
        source += "\n\n" + inspect.getsource(t5_classifiers)
    else:
        imports = f"from torch import nn\nfrom transformers import {base_config.__name__}, {base_model.__name__}\n"
        source = source.replace("from torch import nn\n", imports)
    with new_file(folder / CODE_FILE) as temporary:
        temporary.write_text(source + classes, encoding="utf-8")


def _class_name(base: type) -> str:
    return _PREFIX + base.__name__
