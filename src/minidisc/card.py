"""Model cards, ``README.md`` as the Hugging Face Hub reads it, and that of a saved student or assistant."""

from __future__ import annotations

import math
import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from minidisc.files import new_file
from minidisc.foreign_text import as_code, in_markdown, without_secrets
from minidisc.modeling.classes import CODE_FILE
from minidisc.report import formats
from minidisc.results import REST_OF
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
_OF_WORDS = """\
Entities were learnt and scored on the words of the rows: a word's label is that of its first piece, and a piece that
is only a blank is passed over. So give the tokenizer words, a list of them, and read their labels from these places:

```python
encoded = tokenizer(words, is_split_into_words=True, truncation=True, return_tensors="pt")
outputs = model(**encoded).logits[0].argmax(-1).tolist()
first = {}  # of each word: its first piece, or of several the first that is more than a blank
for i, word in reversed(list(enumerate(encoded.word_ids()))):
    if word is not None and (word not in first or tokenizer.decode(encoded["input_ids"][0, i]).strip()):
        first[word] = i
print([(words[word], model.config.id2label[outputs[i]]) for word, i in sorted(first.items())])
```

Where words are encoded as if no space stood between them (Qwen, Llama 3), give the tokenizer all but the first with a
space before them. The pipeline finds words of its own, also with `aggregation_strategy="first"`: with many tokenizers
one begins at every hyphen, full stop or apostrophe, so that `U.S.` may become two entities."""
_AUTO_CLASSES = {"token-classification": "AutoModelForTokenClassification", "causal-lm": "AutoModelForCausalLM"}
_CORRELATIONS = ("pearson", "spearman")
TAGS = ("minidisc", "model-compression", "arxiv:2205.14570")
"""What a search on the Hub finds every model of minidisc's by."""


def write_card(results: dict[str, Any], model: dict[str, Any], folder: Path | None = None) -> None:
    """Write the card of a model into its folder, atomically; equal results give equal bytes.

    Args:
        results: what `minidisc.pipeline` writes to ``results.json``.
        model: the entry there of the student or of an assistant, or one that `minidisc.sizes` has made for another
            size, whose metrics are those on the selection rows.
        folder: where it is written, if not to the model's ``path``.
    """
    folder = folder or Path(model["path"])
    write_markdown("card.md.jinja", _variables(results, model, folder), _metadata(results, model), folder)


def write_markdown(template: str, variables: dict[str, Any], data: Any, folder: Path) -> None:
    """Write a folder's card, atomically.

    Args:
        template: a file of the package, which may use the filters of `minidisc.report.formats`, and has to use
            ``markdown`` or ``code`` for text that others have written.
        variables: what it uses.
        data: metadata, a ``huggingface_hub.ModelCardData``.
        folder: where ``README.md`` is put.
    """
    from huggingface_hub import ModelCard

    body = _compiled(template).render(variables)
    card = ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n", ignore_metadata_errors=False)
    with new_file(folder / "README.md") as temporary:
        # File names on Linux need not be valid Unicode.
        temporary.write_text(str(card), encoding="utf-8", errors="backslashreplace")


@cache
def _compiled(template: str) -> Any:
    """A file of the package as a template; compiling it takes longer than filling it in."""
    import jinja2

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {name: getattr(formats, name) for name in formats.FILTERS}
    environment.filters |= {"markdown": in_markdown, "code": as_code}
    return environment.from_string(resources.files("minidisc").joinpath(template).read_text(encoding="utf-8"))


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


def metadata(
    task: dict[str, Any], settings: dict[str, Any], metrics: dict[str, float] | None, split: str, **changes: Any
) -> Any:
    """Metadata of a card, a ``huggingface_hub.ModelCardData``.

    Args:
        task: ``name``, ``kind`` and ``metrics`` of a `minidisc.tasks.Task`.
        settings: those that say where the rows come from.
        metrics: on the validation rows; None where there are none that others could compute too.
        split: the file's name or the Hub's split that these rows are.
        changes: other fields, ``base_model`` and ``model_name`` among them; a ``base_model`` that is not on the Hub
            is left out.
    """
    from huggingface_hub import EvalResult, ModelCardData

    tag = pipeline_of(task["kind"])
    dataset = _dataset(settings)
    found = [
        EvalResult(
            task_type=tag,
            dataset_type=dataset or "own",
            dataset_name=task["name"] if dataset else "own files",
            dataset_config=task["name"].removeprefix("glue/") if task["name"] in GLUE else None,
            # A local copy of a benchmark has its splits as files.
            dataset_split=split.removesuffix(".jsonl.gz") if dataset else split,
            metric_type=_HUB_METRICS.get(name, name),
            metric_name=name,
            metric_value=round(value, 6),
        )
        for name, value in (metrics or {}).items()
        if name in task["metrics"]
    ]
    model = changes.pop("base_model")
    base = model and hub_id(model)
    relation = changes.pop("base_model_relation", "finetune")
    return ModelCardData(
        **{
            "library_name": "transformers",
            "pipeline_tag": tag,
            "base_model": base,
            "base_model_relation": relation if base else None,
            "datasets": [dataset] if dataset else None,
            "metrics": sorted({_HUB_METRICS.get(name, name) for name in task["metrics"]}),
            "eval_results": found or None,
            **changes,
        }
    )


def pipeline_of(kind: str) -> str:
    """The Hub's name for a kind of task, which is that of transformers' pipeline for it."""
    return _PIPELINES.get(kind, "text-classification")


def auto_class_of(kind: str) -> str:
    """The Auto class of transformers that loads models for a kind of task."""
    return _AUTO_CLASSES.get(kind, "AutoModelForSequenceClassification")


def usage_of(kind: str) -> str:
    """What the code of a card does not say of how a model is used; nothing where there is nothing."""
    return _OF_WORDS if kind == "token-classification" else ""


def errors_of(metrics: dict[str, float], rows: int) -> dict[str, float | None]:
    """`sampling_error` of each of several metrics."""
    return {name: sampling_error(name, value, rows) for name, value in metrics.items()}


def _metadata(results: dict[str, Any], model: dict[str, Any]) -> Any:
    split = results["rows"]["validation"]["source"]
    return metadata(
        results["task"],
        results["settings"],
        # Neither the selection rows of another size nor a part of a split are one that others could evaluate on.
        None if split.startswith(REST_OF) else model.get("metrics"),
        split,
        base_model=_teacher_on_hub(results),
        tags=[*TAGS, *(["distillation"] if results["settings"]["loss"] != "labels" else []), "pruning"],
        model_name=_name(results, model),
    )


def _variables(results: dict[str, Any], model: dict[str, Any], folder: Path) -> dict[str, Any]:
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
        "teacher": _teacher_on_hub(results) or _folder_name(settings["teacher"]),
        "on_hub": _teacher_on_hub(results) is not None,
        "task": task,
        "rows": results["rows"],
        "split": split,
        "settings": settings,
        "vocabulary": results.get("vocabulary"),
        "embeddings": results.get("embeddings"),
        "assistants": [a["sparsity"] for a in results["assistants"]],
        "is_student": model is results["student"],
        "models": models,
        "errors": {name: errors_of(each["metrics"], rows["count"]) for name, each in models},
        "auto_class": auto_class_of(task["kind"]),
        "pipeline": pipeline_of(task["kind"]),
        "usage": usage_of(task["kind"]),
        "plain": not (folder / CODE_FILE).exists(),
        "versions": results["versions"],
        "warnings": _warnings(results, model),
    }


def _warnings(results: dict[str, Any], model: dict[str, Any]) -> list[str]:
    """A run's warnings without those that are of another of its models alone."""
    # An extracted size may be in a folder of any name. Runs of older versions do not say whose a warning is.
    own = Path(model["path"]).name if "metrics" in model else None
    others = [line for of, lines in results.get("warnings_of", {}).items() if of != own for line in lines]
    return [without_secrets(line) for line in results["warnings"] if line not in others]


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


def hub_id(model: str) -> str | None:
    """A model's name on the Hub, if it came from there."""
    on_hub = not Path(model).exists() and re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", model)
    return model if on_hub else None


def shown_name(model: str) -> str:
    """What a card calls a model: its name on the Hub, or its folder's, without the place where that lies."""
    return hub_id(model) or _folder_name(model)


def _folder_name(path: str) -> str:
    # The folder that a command runs in may be given as a dot.
    return Path(path).name or Path(path).resolve().name


def _teacher_on_hub(results: dict[str, Any]) -> str | None:
    """The teacher's name on the Hub, if the run took it from there.

    That a folder of its name is not here does not say so: an extracted size's card may be written on another machine.
    """
    teacher = results["settings"]["teacher"]
    # Of a folder it is a hash of the files in it, else name and commit (`minidisc.teachers.fingerprint_of`).
    weights = results.get("fingerprints", {}).get("teacher_weights", teacher)
    return hub_id(teacher) if weights.partition("@")[0] == teacher else None


def _dataset(settings: dict[str, Any]) -> str | None:
    """The data set's name on the Hub, if the rows are one's."""
    task = settings["task"]
    own = settings.get("train_file") or settings["validation_file"] or settings.get("train_text")
    if own or task is None or (settings["data_dir"] and task not in BENCHMARKS):
        return None
    return hub_arguments(task)[0]
