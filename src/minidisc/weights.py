"""Whether the weights in a folder are safetensors, and those of the model that its config.json speaks of."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from minidisc.architectures import FAMILIES, STUDENT_PREFIX, Architecture, architecture_for
from minidisc.errors import UserError


def check_files(source: str, config: Any) -> None:
    """Refuse a folder that names files of weights which are no safetensors, or lie outside of it.

    transformers reads them wherever they are, also pickles; and what lies elsewhere can change unseen.

    Args:
        source: the folder; of a Hub id nothing is checked.
        config: the model's configuration, which may name one file of weights.

    Raises:
        UserError: config.json or an index names such a file, or an index is none.
    """
    folder = Path(source)
    named = {"config.json": [name] if (name := getattr(config, "transformers_weights", None)) is not None else []}
    for index in folder.glob(f"*{_INDEX}"):
        try:
            named[index.name] = [*json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()]
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UserError(
                f"{index.name} of {source!r} is no index of weights; give the folder as save_pretrained wrote it."
            ) from None
    for file, names in named.items():
        for name in names:
            if not isinstance(name, str) or Path(name).name != name or not name.endswith((_SUFFIX, _INDEX)):
                raise UserError(
                    f"{file} of {source!r} names {name!r} as a file of weights; allowed are .safetensors beside it."
                )


def check_weights(model: Any, report: Mapping[str, Any], new_head: bool, source: str) -> list[str]:
    """Refuse weights that the model is not made of; of a new classifier there may be any, or none.

    Args:
        model: as it was loaded.
        report: transformers' own of the loading.
        new_head: whether a classifier of another shape may be replaced by a freshly initialised one.
        source: where the weights are from.

    Returns:
        Parameters that were drawn by chance and that an answer rests on, such as those of a classifier, which is new
        also where there is one of another shape.

    Raises:
        UserError: layers or embeddings have other shapes, are missing, or are left over.
    """
    _check_shapes(model, report["mismatched_keys"], new_head, source)
    # An EncT5 that is made of another T5 takes one layer of its decoder, or draws that by chance.
    new_decoder = _becomes_enct5(model, report["missing_keys"])
    _check_left_over(model, report["unexpected_keys"], new_decoder, source)
    _check_missing(model, report["missing_keys"], new_head, new_decoder, source)
    # No known family has a pooler that it does not use; of another one, nobody knows.
    known = _architecture_of(model) is not None
    missing = {name for name in report["missing_keys"] if known or not _from_body(model, name)[1]}
    return sorted({*missing, *(name for name, *_ in report["mismatched_keys"])})


_SUFFIX, _INDEX = ".safetensors", ".safetensors.index.json"
# Constants that older versions of transformers saved along, and what cross-attention of T5 never read.
_HARMLESS = re.compile(
    r"(^|\.)(position_ids|token_type_ids|masked_bias|version|\w*inv_freq|(attn|attention|crossattention)\.bias"
    r"|EncDecAttention\.relative_attention_bias\.weight)$"
)
# What a decoder that has become an encoder leaves out, and what may be no parameter.
_UNSURE = re.compile(r"cross_?att|(?<!\.weight)(?<!\.bias)$")
# What is trained for a task, some of it inside the body.
_OF_A_TASK = re.compile(r"(^|\.)(pooler|lm_head|cls|classifier|score)\.")


def _check_shapes(model: Any, mismatched: Collection[tuple[str, Any, Any]], new_head: bool, source: str) -> None:
    """Refuse weights of other shapes than the configuration's; of a new classifier there may be any."""
    body = f"{model.base_model_prefix}."
    wrong = sorted(weights for weights in mismatched if not new_head or weights[0].startswith(body))
    if wrong:
        name, *shapes = wrong[0]
        saved, needed = (" × ".join(map(str, shape)) for shape in shapes)
        others = f" ({len(wrong) - 1} more differ)" * (len(wrong) > 1)
        raise UserError(
            f"the weights of {source!r} do not fit its config.json: {name} is {saved}, where config.json says {needed}"
            f"{others}; mend config.json, or save model and configuration again with save_pretrained."
        )


def _check_left_over(model: Any, unexpected: Collection[str], new_decoder: bool, source: str) -> None:
    """Refuse weights of layers and embeddings that the model has not; warn of others that may have been in its body.

    What surrounds a body, such as another task's head or a pooler, is nobody's loss.
    """
    architecture = _architecture_of(model)
    lost: list[str] = []
    perhaps: list[str] = []
    for name in sorted(unexpected, key=_natural):
        if _HARMLESS.search(name) or _OF_A_TASK.search(name):
            continue
        path, prefixed = _from_body(model, name)
        if architecture is None:
            perhaps += [name] * prefixed
        elif new_decoder and path.startswith("decoder."):
            continue
        elif owner := _owner(model, architecture, path):
            beyond = _is_beyond(model, owner, path)
            (lost if beyond or not _UNSURE.search(path) else perhaps).append(name)
        elif prefixed or _in_stack(model, architecture, path):
            perhaps.append(name)
    if lost:
        raise UserError(
            f"the weights of {source!r} hold {len(lost)} that its config.json has no place for (the first: {lost[0]}"
            "): it would not be the model that was trained; mend config.json, or give another model where "
            "transformers no longer has such parameters."
        )
    if perhaps:
        logging.getLogger("minidisc").warning(
            f"the weights of {source!r} hold {len(perhaps)} that are left out, since its config.json has no place for "
            f"them (the first: {perhaps[0]}): if they were trained with it, it is another model now."
        )


def _check_missing(model: Any, missing: Collection[str], new_head: bool, new_decoder: bool, source: str) -> None:
    """Refuse a body that is drawn by chance; of a family that is not known, parts may be meant to be."""
    if new_head and _architecture_of(model) is None:
        return
    body = []
    for name in sorted(missing, key=_natural):
        path, prefixed = _from_body(model, name)
        decodes = new_decoder and path.startswith("decoder.")
        if prefixed and not decodes and not _OF_A_TASK.search(name) and not _HARMLESS.search(name):
            body.append(name)
    if body:
        raise UserError(
            f"the weights of {source!r} lack {len(body)} of the layers and embeddings that its config.json speaks of "
            f"(the first: {body[0]}), which would be drawn by chance; give weights and config.json of the same model, "
            "as save_pretrained writes them."
        )


def _architecture_of(model: Any) -> Architecture | None:
    family = model.config.model_type.removeprefix(STUDENT_PREFIX)
    return architecture_for(family) if family in FAMILIES else None


def _becomes_enct5(model: Any, missing: Collection[str]) -> bool:
    """Whether an EncT5 is made of another T5: there was no classifier."""
    architecture = _architecture_of(model)
    if architecture is None or architecture.decoder_length is None:
        return False
    return any(not _from_body(model, name)[1] for name in missing)


def _from_body(model: Any, name: str) -> tuple[str, bool]:
    """A parameter's path from the base model, and whether its name says that it is a part of that."""
    prefix = f"{model.base_model_prefix}."
    return name.removeprefix(prefix), name.startswith(prefix)


def _owner(model: Any, architecture: Architecture, path: str) -> str | None:
    """Which of the layers and embeddings that the model has a parameter would be in."""
    owners = (owner for owner in architecture.body if path.startswith(f"{owner}."))
    return next((owner for owner in owners if _at(model, owner) is not None), None)


def _is_beyond(model: Any, owner: str, path: str) -> bool:
    """Whether a parameter would be in a layer of a higher number than the model has."""
    number = path.removeprefix(f"{owner}.").partition(".")[0]
    return number.isdecimal() and int(number) >= len(_at(model, owner))


def _in_stack(model: Any, architecture: Architecture, path: str) -> bool:
    """Whether a parameter would be beside the layers, in a module that holds nothing else."""
    stacks = {owner.partition(".")[0] for owner in architecture.body if "." in owner}
    stack = path.partition(".")[0]
    return stack in stacks and _at(model, stack) is not None


def _at(model: Any, path: str) -> Any:
    module = model.base_model
    for name in path.split("."):
        module = getattr(module, name, None)
    return module


def _natural(name: str) -> list[Any]:
    """Sorts layer 10 behind layer 9."""
    return [(not part.isdecimal(), int(part) if part.isdecimal() else part) for part in name.split(".")]
