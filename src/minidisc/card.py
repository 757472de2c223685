"""The model card of a saved student or assistant: its ``README.md``, as the Hugging Face Hub reads it."""

from __future__ import annotations

import math
import re
from importlib import resources
from pathlib import Path
from typing import Any

from minidisc.files import new_file
from minidisc.modeling.classes import CODE_FILE
from minidisc.report import formats
from minidisc.tasks import BENCHMARKS, GLUE
from minidisc.tasks.benchmarks import hub_arguments

# The Hub's names of metrics, where they are not ours.
_HUB_METRICS = {
    "matthews": "matthews_correlation",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
    "entity_f1": "f1",
}
_PIPELINES = {"token-classification": "token-classification", "causal-lm": "text-generation"}
_AUTO_CLASSES = {"token-classification": "AutoModelForTokenClassification", "causal-lm": "AutoModelForCausalLM"}
_CORRELATIONS = ("pearson", "spearman")


def write_card(results: dict[str, Any], model: dict[str, Any], folder: Path | None = None) -> None:
    """Write the card of a model into its folder, atomically; equal results give equal bytes.

    Args:
        results: what `minidisc.pipeline` writes to ``results.json``.
        model: the entry there of the student or of an assistant, or one that `minidisc.sizes` has made for another
            size, whose metrics are those on the selection rows.
        folder: where it is written, if not to the model's ``path``.
    """
    import jinja2
    from huggingface_hub import ModelCard

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {name: getattr(formats, name) for name in formats.FILTERS}
    source = resources.files("minidisc").joinpath("card.md.jinja").read_text(encoding="utf-8")
    body = environment.from_string(source).render(_variables(results, model))
    card = ModelCard(f"---\n{_metadata(results, model).to_yaml()}\n---\n\n{body}\n", ignore_metadata_errors=False)
    with new_file((folder or Path(model["path"])) / "README.md") as temporary:
        # File names on Linux need not be valid Unicode.
        temporary.write_text(str(card), encoding="utf-8", errors="backslashreplace")


def sampling_error(metric: str, value: float, rows: int) -> float | None:
    """Standard error of a metric, as far as it comes from which rows it was computed on.

    Args:
        metric: a key of `minidisc.tasks.METRICS`.
        value: its value.
        rows: how many, independent of each other.

    Returns:
        That of a share for accuracy, the large-sample one for correlations; None for other metrics, which have no
        simple formula, and for values at their limits, where the formulas say 0.
    """
    if metric == "accuracy" and 0 < value < 1:
        return math.sqrt(value * (1 - value) / rows)
    if metric in _CORRELATIONS and -1 < value < 1 and rows > 1:
        return (1 - value**2) / math.sqrt(rows - 1)
    return None


def _metadata(results: dict[str, Any], model: dict[str, Any]) -> Any:
    from huggingface_hub import EvalResult, ModelCardData

    task, settings = results["task"], results["settings"]
    tag = _PIPELINES.get(task["kind"], "text-classification")
    dataset = _dataset(settings)
    found = [
        # The selection rows of another size are no split that others could evaluate on.
        EvalResult(
            task_type=tag,
            dataset_type=dataset or "own",
            dataset_name=task["name"] if dataset else "own files",
            dataset_config=task["name"].removeprefix("glue/") if task["name"] in GLUE else None,
            dataset_split="validation",
            metric_type=_HUB_METRICS.get(name, name),
            metric_name=name,
            metric_value=round(model["metrics"][name], 6),
        )
        for name in (task["metrics"] if "metrics" in model else [])
    ]
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=tag,
        base_model=_hub_id(settings["teacher"]),
        base_model_relation="finetune" if _hub_id(settings["teacher"]) else None,
        datasets=[dataset] if dataset else None,
        metrics=sorted({_HUB_METRICS.get(name, name) for name in task["metrics"]}),
        tags=["minidisc", "distillation", "pruning", "model-compression", "arxiv:2205.14570"],
        model_name=_name(results, model),
        eval_results=found or None,
    )


def _variables(results: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    task, settings = results["task"], results["settings"]
    split = "validation" if "metrics" in model else "selection"
    rows = results["rows"][split]
    found = [results["teacher"], *results["assistants"], results["student"]]
    # An extracted size beside those of the run, on the rows that it was evaluated on.
    found += [] if "metrics" in model else [model]
    models = [
        (_name(results, each), {**each, "metrics": each["metrics" if split == "validation" else "selection_metrics"]})
        for each in found
    ]
    return {
        "name": _name(results, model),
        "model": model,
        "teacher": _hub_id(settings["teacher"]) or Path(settings["teacher"]).name,
        "on_hub": _hub_id(settings["teacher"]) is not None,
        "task": task,
        "rows": results["rows"],
        "split": split,
        "settings": settings,
        "vocabulary": results.get("vocabulary"),
        "assistants": [a["sparsity"] for a in results["assistants"]],
        "is_student": model is results["student"],
        "models": models,
        "errors": {
            (name, metric): sampling_error(metric, each["metrics"][metric], rows["count"])
            for name, each in models
            for metric in task["metrics"]
        },
        "auto_class": _AUTO_CLASSES.get(task["kind"], "AutoModelForSequenceClassification"),
        "pipeline": _PIPELINES.get(task["kind"], "text-classification"),
        "plain": not (Path(model["path"]) / CODE_FILE).exists(),
        "versions": results["versions"],
        "warnings": results["warnings"],
    }


def _name(results: dict[str, Any], model: dict[str, Any]) -> str:
    if model is results["teacher"]:
        return "teacher"
    if model is results["student"]:
        return "student"
    if "metrics" not in model:
        return "extracted"
    if len(results["assistants"]) == 1:
        return "assistant"
    return f"assistant {1 + next(i for i, a in enumerate(results['assistants']) if a is model)}"


def _hub_id(teacher: str) -> str | None:
    """The teacher's name on the Hub, if it came from there."""
    on_hub = not Path(teacher).exists() and re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", teacher)
    return teacher if on_hub else None


def _dataset(settings: dict[str, Any]) -> str | None:
    """The data set's name on the Hub, if the rows are one's."""
    task = settings["task"]
    own = settings["train_file"] or settings["validation_file"] or settings["train_text"]
    if own or task is None or (settings["data_dir"] and task not in BENCHMARKS):
        return None
    return hub_arguments(task)[0]
