"""The classes of small models, one pair a family, and their registration with transformers' Auto classes."""

from __future__ import annotations

import inspect
import types
from functools import cache
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from minidisc.architectures import FAMILIES, STUDENT_PREFIX, architecture_for
from minidisc.files import new_file
from minidisc.modeling import narrow

CODE_FILE = "modeling_minidisc.py"
_LAYOUT_KEYS = (
    "layers",
    "query",
    "key",
    "value",
    "attention_output",
    "ffn_up",
    "ffn_down",
    "heads",
    "hidden",
)


@cache
def narrow_classes(family: str) -> tuple[Any, Any]:
    """The configuration class and the sequence classification class of a family's small models."""
    base_config: Any = CONFIG_MAPPING[family]
    base_model: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[base_config]
    config = types.new_class(
        _class_name(base_config),
        (base_config,),
        exec_body=lambda namespace: namespace.update(
            __module__=__name__,
            __annotations__={"heads_per_layer": list | None, "neurons_per_layer": list | None},
            model_type=STUDENT_PREFIX + family,
            heads_per_layer=None,
            neurons_per_layer=None,
        ),
    )
    model = types.new_class(
        _class_name(base_model),
        (narrow.NarrowModel, base_model),
        exec_body=lambda namespace: namespace.update(__module__=__name__, config_class=config, layout=_layout(family)),
    )
    return config, model


def register() -> None:
    """Teach transformers' Auto classes every small model's ``model_type``; harmless when repeated."""
    for family in FAMILIES:
        config, model = narrow_classes(family)
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoModelForSequenceClassification.register(config, model, exist_ok=True)


def narrow_config(teacher_config: Any, heads: tuple[int, ...], neurons: tuple[int, ...]) -> Any:
    """A small model's configuration: all of the teacher's, and the widths."""
    family = teacher_config.model_type.removeprefix(STUDENT_PREFIX)
    config_class, model_class = narrow_classes(family)
    values = {k: v for k, v in teacher_config.to_dict().items() if k not in _NOT_INHERITED}
    config = config_class(**values, heads_per_layer=list(heads), neurons_per_layer=list(neurons))
    config.architectures = [model_class.__name__]
    module = CODE_FILE.removesuffix(".py")
    config.auto_map = {
        "AutoConfig": f"{module}.{config_class.__name__}",
        "AutoModelForSequenceClassification": f"{module}.{model_class.__name__}",
    }
    return config


_NOT_INHERITED = (
    "model_type",
    "architectures",
    "auto_map",
    "transformers_version",
    "heads_per_layer",
    "neurons_per_layer",
)


def write_code_file(folder: Path, family: str) -> None:
    """Put the self-contained code of a family's small models beside its weights."""
    config, model = narrow_classes(family)
    base_config, base_model = config.__bases__[0], model.__bases__[1]
    layout = "".join(f"        {key!r}: {value!r},\n" for key, value in _layout(family).items())
    classes = f'''

class {config.__name__}({base_config.__name__}):
    """Configuration of a {family} model with its own width in every layer."""

    model_type = {config.model_type!r}
    heads_per_layer: list | None = None
    neurons_per_layer: list | None = None


class {model.__name__}(NarrowModel, {base_model.__name__}):
    """A {family} classifier with its own width in every layer."""

    config_class = {config.__name__}
    layout = {{
{layout}    }}
'''
    imports = f"from torch import nn\nfrom transformers import {base_config.__name__}, {base_model.__name__}\n"
    source = inspect.getsource(narrow).replace("from torch import nn\n", imports)
    with new_file(folder / CODE_FILE) as temporary:
        temporary.write_text(source + classes, encoding="utf-8")


def _class_name(base: type) -> str:
    return "MiniDisc" + base.__name__


def _layout(family: str) -> dict[str, str]:
    architecture = architecture_for(family)
    return {key: getattr(architecture, key) for key in _LAYOUT_KEYS}
