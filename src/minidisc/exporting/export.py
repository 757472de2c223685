"""`minidisc export`: write, check, measure, and only then hand over."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy as np
import torch

from minidisc.card import shown_name
from minidisc.config import ExportSettings
from minidisc.errors import CheckFailed, UserError
from minidisc.evaluation import Evaluation
from minidisc.exporting.card import write_export_card
from minidisc.exporting.engines import Engine, check_packages
from minidisc.exporting.graph import write_int8, write_onnx, write_openvino
from minidisc.files import new_folder, write_json
from minidisc.latency import is_busy, one_thread, side_by_side
from minidisc.measure import processor
from minidisc.prediction import model_inputs
from minidisc.runs import check_new, versions
from minidisc.tasks import CAUSAL_LM, collator
from minidisc.tasks.encoding import joins_words
from minidisc.values import check_class

LARGEST_DIFFERENCE = 1e-4
"""What a logit may be off by; where the largest is beyond 1, so much of it."""
BATCH_SIZES = (1, 32)
# A model's inputs as the tokenizers package calls them.
_ENCODING = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}


def export(settings: ExportSettings, note: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Export a classifier into a folder that runs without PyTorch.

    Args:
        settings: what, where to, and the validation rows that it is checked on.
        note: is told what happens, a line at a time.

    Returns:
        What ``export.json`` in the folder holds. ``engines`` has one entry for PyTorch and one for each exported file:
        ``metrics`` on the validation rows, ``largest_difference`` of a logit from PyTorch's there, ``latency`` by
        batch size (`side_by_side`), and ``bytes``, the size of the weights' files.

    Raises:
        UserError: the settings, the model, the rows or the folder cannot be used, packages are missing, or torch
            cannot export it.
        CheckFailed: the exported model does not compute what PyTorch computes, or int8 loses too much; no folder is
            left.
    """
    check_class(ExportSettings, settings)
    folder = Path(settings.output_dir)
    check_new(folder)
    check_packages(settings.format)
    evaluation = Evaluation.load(settings)
    if evaluation.task.kind == CAUSAL_LM:
        raise UserError(
            "a language model cannot be exported, only models that classify; students of --widths uniform are plain "
            "checkpoints, which other engines' own converters take."
        )
    if not evaluation.loaded.tokenizer.is_fast:
        raise UserError("the tokenizer has no tokenizer.json, which export needs; save it again as a fast tokenizer.")
    if evaluation.length_from == "model":
        note(f"--max-length {evaluation.length}, as in the model's training")
    with new_folder(folder) as temporary:
        files = _write_files(settings, evaluation, temporary, note)
        record = {
            "model": shown_name(settings.model),
            "format": settings.format,
            "rows": {"source": evaluation.source, "count": len(evaluation.rows), "max_length": evaluation.length},
            **_measure(settings, evaluation, files, note),
            "machine": processor(),
            "versions": {**versions(), **{name: metadata.version(name) for name in _engine_packages(settings)}},
        }
        evaluation.loaded.tokenizer.save_pretrained(temporary)
        write_json(temporary / "config.json", _config(evaluation.loaded.model))
        _write_example(settings, evaluation, files, temporary)
        write_export_card(settings, evaluation.task, record, temporary)
        write_json(temporary / "export.json", record)
    return record


def _write_files(
    settings: ExportSettings, evaluation: Evaluation, folder: Path, note: Callable[[str], None]
) -> dict[str, Path]:
    """The model's files by the name of what they hold."""
    note(f"exporting to {settings.format}")
    model = evaluation.loaded.model
    # At least two rows: of a single one the tracer would make a constant.
    write_onnx(model, _middle_rows(evaluation, 2), folder / "model.onnx")
    if settings.format == "openvino":
        write_openvino(folder / "model.onnx", folder / "model.xml")
        for file in folder.glob("model.onnx*"):
            file.unlink()
        return {"openvino": folder / "model.xml"}
    files = {"onnx": folder / "model.onnx"}
    if settings.int8:
        files["onnx int8"] = folder / "model_int8.onnx"
        write_int8(files["onnx"], files["onnx int8"])
    return files


def _measure(
    settings: ExportSettings, evaluation: Evaluation, files: dict[str, Path], note: Callable[[str], None]
) -> dict[str, Any]:
    count = len(evaluation.rows)
    note(f"comparing with PyTorch on {count} rows of {evaluation.source}")
    model = evaluation.loaded.model
    expected = evaluation.logits(model, settings.batch_size)
    before = evaluation.metrics(expected)
    engines: dict[str, dict[str, Any]] = {
        "pytorch": {"metrics": before, "bytes": _weight_bytes(settings.model, model)}
    }
    for name, path in files.items():
        logits = evaluation.logits(Engine(path, torch.get_num_threads()), settings.batch_size)
        after, (difference, allowed) = evaluation.metrics(logits), _differences(expected, logits)
        # The engine's files: weights may stand beside the graph.
        size = sum(file.stat().st_size for file in path.parent.glob(f"{path.stem}.*"))
        engines[name] = {"metrics": after, "largest_difference": difference, "bytes": size}
        if name != "onnx int8" and not difference <= allowed:
            raise CheckFailed(
                f"a logit of the exported model differs from PyTorch's by {difference:.1e} on {count} rows of "
                f"{evaluation.source}, and {allowed:.0e} is allowed; nothing was written."
            )
        # Rounded, because 0.81 - 0.8 is more than 0.01 in floating point.
        drop = round(before["metric"] - after["metric"], 9)
        if name == "onnx int8" and drop > settings.max_drop:
            raise CheckFailed(
                f"int8 takes the metric from {before['metric']:.4f} to {after['metric']:.4f} on {count} rows of "
                f"{evaluation.source}, and a loss of {settings.max_drop:g} is allowed; nothing was written; leave out "
                "--int8, or raise --max-drop."
            )
    note("timing on one thread")
    tokens = {}
    with one_thread():
        models = {"pytorch": model, **{name: Engine(path, 1) for name, path in files.items()}}
        for size in BATCH_SIZES:
            inputs = _middle_rows(evaluation, size)
            tokens[str(size)] = inputs["input_ids"].shape[1]
            for name, timing in side_by_side(models, inputs).items():
                engines[name].setdefault("latency", {})[str(size)] = timing
    busy = is_busy(timing for engine in engines.values() for timing in engine["latency"].values())
    return {"engines": engines, "timing": {"threads": 1, "tokens": tokens, "busy": busy}}


def _middle_rows(evaluation: Evaluation, size: int) -> dict[str, torch.Tensor]:
    """A batch of rows of middling length; the same ones again where there are too few."""
    rows = evaluation.rows
    order = np.argsort(rows["length"][:], kind="stable").tolist()
    start = max(0, len(order) // 2 - size // 2)
    drawn = [rows[order[(start + i) % len(order)]] for i in range(size)]
    return model_inputs(collator(evaluation.loaded.tokenizer)(drawn), torch.device("cpu"))


def _differences(expected: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """The largest difference between logits, and the largest that is allowed.

    They are as `minidisc.prediction.predict` gives them; words that the model did not see have none.
    """
    if expected.dtype == object:
        expected, found = np.concatenate(list(expected)), np.concatenate(list(found))
    seen = np.isfinite(expected)
    allowed = LARGEST_DIFFERENCE * max(1.0, float(np.abs(expected[seen]).max()))
    return float(np.abs(expected[seen] - found[seen]).max()), allowed


def _weight_bytes(source: str, model: Any) -> int:
    files = list(Path(source).glob("*.safetensors"))
    if files:
        return sum(file.stat().st_size for file in files)
    return sum(p.numel() * p.element_size() for p in model.parameters())


def _config(model: Any) -> dict[str, Any]:
    """The configuration with labels, under the name that transformers has for the family.

    The graph says how wide a layer is, and no code comes with it: so the tokenizer, and tools that read a
    configuration beside an ONNX file, find a family that they know.
    """
    config = model.config.to_dict()
    for name in ("auto_map", "architectures", "_name_or_path", "heads_per_layer", "neurons_per_layer"):
        config.pop(name, None)
    known = next(base for base in type(model.config).__mro__ if base.__module__.startswith("transformers."))
    return {**config, "model_type": getattr(known, "model_type", "") or config["model_type"]}


def _write_example(settings: ExportSettings, evaluation: Evaluation, files: dict[str, Path], folder: Path) -> None:
    import jinja2

    tokenizer, task = evaluation.loaded.tokenizer, evaluation.task
    words = task.kind == "token-classification"
    names = evaluation.loaded.model.config.id2label
    source = resources.files("minidisc.exporting").joinpath("example.py.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    text = environment.from_string(source).render(
        format=settings.format,
        file=repr(list(files.values())[-1].name),
        labels=repr([names[i] for i in range(len(names))]),
        columns=repr({name: _ENCODING[name] for name in _middle_rows(evaluation, 2)}),
        max_length=int(min(evaluation.length, tokenizer.model_max_length)),
        pad_id=tokenizer.pad_token_id,
        pad_token=repr(tokenizer.pad_token),
        pad_type_id=tokenizer.pad_token_type_id,
        side=repr(tokenizer.padding_side),
        truncation_side=repr(tokenizer.truncation_side),
        splits_special_tokens=tokenizer.split_special_tokens,
        words=words,
        joins_words=words and joins_words(tokenizer),
        pairs=len(task.text_columns) == 2,
        regression=task.kind == "regression",
    )
    (folder / "example.py").write_text(text + "\n", encoding="utf-8")


def _engine_packages(settings: ExportSettings) -> tuple[str, ...]:
    return ("onnx", "onnxscript", "openvino" if settings.format == "openvino" else "onnxruntime")
