"""Turn raw labels (numbers, names, booleans) into what a model is trained on."""

from __future__ import annotations

import logging
import math
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence, Set

import pandas as pd

from minidisc.errors import UserError
from minidisc.tasks.columns import RawLabel, count_rows
from minidisc.tasks.sources import Source
from minidisc.tasks.task import Kind

_FEW = 20  # classes that are whole numbers
_PLACEHOLDER = re.compile(r"label[-_ ]?\d+", re.IGNORECASE)
Labels = list[float | str | None]


def unify(labels: Mapping[str, list[RawLabel]], regression: bool = False) -> dict[str, Labels]:
    """Make the labels of all splits numbers if every one is, or text that reads as, a number; else make them text.

    Whole numbers that are written otherwise than numbers are, such as 007 or 1e3, are text too, being names, unless
    it is known that they are for regression; then only what does not read as a number is text.
    """
    values = [label for column in labels.values() for label in column if label is not None]
    if values and not all(isinstance(label, bool) for label in values):
        try:
            # Not float(): it would take "1_0" for a number.
            pd.to_numeric(pd.Series(values, dtype=object))
        except (ValueError, TypeError):
            if regression:
                return {
                    split: [label if _is_word(label) else _number(label) for label in column]  # type: ignore[misc]
                    for split, column in labels.items()
                }
        else:
            numbers: dict[str, Labels] = {
                split: [_number(label) for label in column] for split, column in labels.items()
            }
            if regression or infer_kind(numbers) == "regression" or all(_is_plain(label) for label in values):
                return numbers
    return {split: [None if label is None else _text(label) for label in column] for split, column in labels.items()}


def infer_kind(labels: Mapping[str, Labels]) -> Kind:
    """Regression if a label is a number and not whole, else classification."""
    values = [label for column in labels.values() for label in column]
    fractional = any(isinstance(label, float) and not label.is_integer() for label in values)
    return "regression" if fractional else "classification"


def check_unmixed(labels: Mapping[str, Labels], sources: Mapping[str, Source]) -> None:
    """Refuse numbers with fractions beside labels that are no numbers.

    Raises:
        UserError: a label of some split has a fraction, and one of some split does not read as a number.
    """
    texts = {label for column in labels.values() for label in column if isinstance(label, str)}
    words = {text for text in texts if _is_word(text)}
    if not words or not any(math.isfinite(number) and not number.is_integer() for number in map(float, texts - words)):
        return
    for split, column in labels.items():
        bad = [row for row, label in enumerate(column, start=1) if label in words]
        if bad:
            raise UserError(
                f"{sources[split].name}: {count_rows(bad)} a label that is no number ({column[bad[0] - 1]!r}) among "
                "numbers with fractions; mend or remove them, or use --task classification."
            )


def check_clear(labels: Labels, source: Source, model_names: tuple[str, ...]) -> None:
    """Refuse many whole numbers that may be quantities as well as classes.

    Raises:
        UserError: there are more than twenty, they do not count from 0, and they are no classes of the model's.
    """
    numbers = {label for label in labels if isinstance(label, float)}
    names = {_text(number) for number in numbers}
    known = names <= {*model_names} or _are_outputs(numbers, model_names)
    if len(numbers) > _FEW and numbers != set(range(len(numbers))) and not known:
        raise UserError(
            f"{source.name}: the labels are {len(numbers)} different whole numbers; say with --task classification or "
            "--task regression what they are."
        )


def infer_names(labels: Labels, source: Source, model_names: tuple[str, ...] = ()) -> tuple[tuple[str, ...], bool]:
    """The class names of own files, and whether the data gave them (integers from 0 on get made-up ones).

    Args:
        labels: as `unify` gives them.
        source: where they are from, for error messages.
        model_names: class names of the model that is to predict the labels, if there is one. If it has all that are
            found, they are the names, whatever their order, and others too: a model must not be kept from a wrong
            guess only because no row has that label. So it is with names that are spelt otherwise, and with labels
            that are numbers of its outputs.

    Raises:
        UserError: if a label is a number and not whole.
    """
    bad = [row for row, label in enumerate(labels, start=1) if isinstance(label, float) and not label.is_integer()]
    if bad:
        raise UserError(
            f"{source.name}: {count_rows(bad)} a label that is no class ({labels[bad[0] - 1]}); "
            "mend them, or use --task regression."
        )
    values = sorted({label for label in labels if label is not None})  # type: ignore[type-var]
    _warn_of_twins(source, values)
    if {_text(value) for value in values} <= {*model_names}:
        return model_names, True
    if _are_outputs({*values}, model_names):
        if 0 not in values:
            _warn_of_outputs(source, values, len(model_names))
        return tuple(f"LABEL_{index}" for index in range(len(model_names))), False
    if names := respelt(values, model_names):
        return names, True
    if values == list(range(len(values))):
        return tuple(f"LABEL_{index}" for index in range(len(values))), False
    return tuple(_text(value) for value in values), True


def placeholder_names(names: Collection[str]) -> bool:
    """Whether all names are ``LABEL_0``, ``LABEL_1``, …, which say nothing about the classes."""
    return all(_PLACEHOLDER.fullmatch(name) for name in names)


def normal(name: str) -> str:
    """A class name without what differs from one writer to the next: case, ``-``, ``_`` and blanks."""
    return re.sub("[-_ ]", "", name).lower()


def respelt(labels: Sequence[float | str], model_names: tuple[str, ...]) -> tuple[str, ...] | None:
    """The model's names, as the labels spell those that they are, if each is one of them."""
    texts = {normal(label): label for label in labels if isinstance(label, str)}
    known = {normal(name) for name in model_names}
    if len(texts) < len(labels) or len(known) < len(model_names) or not {*texts} <= known:
        return None
    return tuple(texts.get(normal(name), name) for name in model_names)


def _are_outputs(labels: Set[float | str], model_names: tuple[str, ...]) -> bool:
    """Whether labels can be nothing but numbers of a model's outputs."""
    if not labels <= {*range(len(model_names))}:
        return False
    # Where outputs have names, numbers from 1 on may count them from 1, and a number that is a name is no output's.
    return placeholder_names(model_names) or (0 in labels and not {_text(label) for label in labels} & {*model_names})


def _warn_of_outputs(source: Source, labels: Sequence[float | str], outputs: int) -> None:
    first = _text(labels[0])
    logging.getLogger("minidisc").warning(
        "%s: no label is 0, and the model's %d outputs have no names; labels are taken to be their numbers from 0 on, "
        "%s that of the output LABEL_%s.",
        *(source.name, outputs, first, first),
    )


def _seen(name: str) -> str:
    """Of a class name what can be seen: no format characters, and letters with their accents however composed."""
    return unicodedata.normalize("NFC", "".join(sign for sign in name if unicodedata.category(sign) != "Cf"))


def _warn_of_twins(source: Source, labels: Sequence[float | str]) -> None:
    alike: dict[str, list[str]] = {}
    for label in labels:
        alike.setdefault(_seen(_text(label)), []).append(_text(label))
    twins = [names for names in alike.values() if len(names) > 1]
    if twins:
        logging.getLogger("minidisc").warning(
            "%s: classes %s differ only in characters that cannot be seen%s; write them alike if they are one.",
            *(source.name, " and ".join(map(ascii, twins[0])), ", and so do others" if len(twins) > 1 else ""),
        )


def regression_labels(labels: Labels, source: Source) -> list[float | None]:
    """Check that labels are finite numbers.

    Raises:
        UserError: if one is not.
    """
    bad = [
        row
        for row, label in enumerate(labels, start=1)
        if isinstance(label, str) or (label is not None and not math.isfinite(label))
    ]
    if bad:
        raise UserError(
            f"{source.name}: {count_rows(bad)} a label that is not a finite number ({labels[bad[0] - 1]!r}); "
            "mend them, or use --task classification."
        )
    return labels  # type: ignore[return-value]


def class_indices(
    labels: Labels, names: tuple[str, ...], *, numbers_are_indices: bool, source: Source, origin: str
) -> list[int | None]:
    """The index of each label in ``names``.

    Args:
        labels: as `unify` gives them.
        names: the class names.
        numbers_are_indices: a number is an index of ``names`` (-1: no label), rather than a name.
        source: where the labels are from, for error messages.
        origin: where the names are from, for error messages.

    Raises:
        UserError: if a label is none of the names.
    """
    if numbers_are_indices and any(isinstance(label, float) for label in labels):
        names = tuple(str(index) for index in range(len(names)))
        labels = [None if label == -1 else label for label in labels]  # type: ignore[assignment]
    index = {name: position for position, name in enumerate(names)}
    texts = [None if label is None else _text(label) for label in labels]
    unknown = [(row, text) for row, text in enumerate(texts, start=1) if text is not None and text not in index]
    seen = {_seen(name): name for name in names} if unknown else {}
    twins = [(row, text) for row, text in unknown if _seen(text) in seen]
    if twins:
        text = twins[0][1]
        raise UserError(
            f"{source.name}: {count_rows([row for row, _ in twins])} a label that {origin} spells otherwise: {text!a} "
            f"and {seen[_seen(text)]!a} differ only in characters that cannot be seen; write them alike."
        )
    if unknown:
        raise UserError(
            f"{source.name}: {count_rows([row for row, _ in unknown])} a label that {origin} does not have: "
            f"{shorten(sorted({text for _, text in unknown}))}; allowed are {shorten(names)}{_or_regression(labels)}."
        )
    return [None if text is None else index[text] for text in texts]


def _or_regression(labels: Labels) -> str:
    return ", or any number with --task regression" if any(isinstance(label, float) for label in labels) else ""


def shorten(values: Sequence[str]) -> str:
    """The values separated by commas, the first ten of them."""
    more = f", … ({len(values)} in all)" if len(values) > 10 else ""
    return ", ".join(repr(value) for value in values[:10]) + more


def _number(label: RawLabel) -> float | None:
    if isinstance(label, str):
        label = float(label)
    return None if label is None or math.isnan(label) else float(label)


def _is_word(label: RawLabel) -> bool:
    """Whether a label does not read as a number."""
    try:
        pd.to_numeric(label)
    except (ValueError, TypeError):
        return True
    return False


def _is_plain(label: RawLabel) -> bool:
    """Whether a label that reads as a number can be told from all others by its value."""
    return not isinstance(label, str) or re.fullmatch(r"(0|-?[1-9]\d{0,14})(\.0*)?|nan", label.lower()) is not None


def _text(label: RawLabel) -> str:
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)
