"""The main job: teacher in, student out, every stage's result a file of the run folder."""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from safetensors import safe_open

from minidisc.architectures import architecture_for
from minidisc.config import CompressSettings, settings_from
from minidisc.devices import resolve_device
from minidisc.extraction import save_small
from minidisc.files import write_json
from minidisc.importance import Importance, compute_importance
from minidisc.listening import Listener, LoggingListener
from minidisc.losses import task_loss
from minidisc.measure import Cost, Shape, measured, processor
from minidisc.nested import order_by_importance
from minidisc.prediction import batches_by_length, model_inputs, predict
from minidisc.preflight import check_disk, check_length, disk_needed, estimate, teacher_warnings
from minidisc.report import write_report
from minidisc.results import CompressionResult, ModelResult, plain, read_result
from minidisc.runs import open_run, versions
from minidisc.schedules import SCHEDULES, Job, Outcome
from minidisc.selection import Candidate
from minidisc.subnetworks import candidate_sparsities, check_grid, full_width, make_spec
from minidisc.tasks import Kind, TaskData, align_labels, collator, encode, hold_out, load_data
from minidisc.teachers import Loaded, fingerprint_of, load_classifier, load_config

SELECTION_MAXIMUM = 2000


def compress(
    teacher: str | Path | None = None,
    task: str | None = None,
    *,
    target_sparsity: float = 0.9,
    output_dir: str | Path | None = None,
    resume: bool = False,
    listener: Listener | None = None,
    settings: CompressSettings | None = None,
    **options: Any,
) -> CompressionResult:
    """Compress a fine-tuned sequence classification model through the best teacher assistant.

    Args:
        teacher: folder or Hub id of the fine-tuned model.
        task: ``glue/NAME``, a Hub dataset id, or None for own files (``train_file``, ``validation_file``).
        target_sparsity: fraction of attention heads and FFN neurons to remove, in (0, 1).
        output_dir: the run folder.
        resume: go on with the run that is in ``output_dir``.
        listener: is told what happens.
        settings: all settings at once, instead of the others.
        options: any other field of `minidisc.config.CompressSettings`.

    Raises:
        UserError: something given cannot be used; nothing was trained.
    """
    if settings is None:
        given = {"teacher": teacher, "task": task, "target_sparsity": target_sparsity, "output_dir": output_dir}
        settings = settings_from(CompressSettings, {**given, **options})
    return _Run(settings, resume, listener or LoggingListener()).finish()


class _Run:
    """One run of the pipeline, from checked input to the last file."""

    def __init__(self, settings: CompressSettings, resume: bool, listener: Listener) -> None:
        self.settings, self.listener = settings, listener
        config = load_config(settings.teacher, settings.trust_remote_code)
        self.architecture = architecture_for(config.model_type)
        check_length(config, self.architecture, settings.max_length)
        kind: Kind | None = "regression" if config.num_labels == 1 else None
        self.data = load_data(settings, kind=kind, need_labels=False)
        self.task = self.data.task
        self.outputs = align_labels(self.task, config.id2label, config.num_labels) or [0]
        self.loaded: Loaded = load_classifier(settings.teacher, settings.trust_remote_code)
        fingerprints = {"teacher_weights": fingerprint_of(settings.teacher), "rows": self.data.fingerprint}
        self._split(self.data)
        self.shape = Shape.of(self.loaded.model, self.architecture)
        self.full = full_width(self.shape.layers, self.shape.heads, self.shape.neurons)
        self.sparsities = candidate_sparsities(settings.target_sparsity, settings.grid)
        check_grid(self.sparsities, sum(self.full.heads), sum(self.full.neurons))
        self.warnings: list[str] = []
        self.device = resolve_device(settings.device)
        self.loaded.model.to(self.device)
        self.costs: dict[str, Cost] = {}
        check_disk(Path(settings.output_dir), disk_needed(self.shape, len(self.sparsities)))
        # Only what has passed every check above gets a folder.
        self.folder = open_run(settings, fingerprints, resume)

    def finish(self) -> CompressionResult:
        done = self.folder / "results.json"
        if done.is_file():
            self.listener.note(f"{self.folder} is complete already.")
            return read_result(self.folder)
        settings = self.settings
        on_selection = self._evaluate(self.loaded.model, self.rows["selection"])
        labels = np.asarray(self.rows["selection"]["label"])
        self.warnings = teacher_warnings(
            self.task, on_selection["metric"], labels, self.loaded.fresh, self.loaded.model.config.id2label
        )
        for warning in self.warnings:
            self.listener.warn(warning)

        importance = self._importance()
        order_by_importance(self.loaded.model, self.architecture, importance)
        scores = importance.heads.numpy(), importance.neurons.numpy()
        specs = [make_spec(*scores, sparsity, settings.neuron_multiple) for sparsity in self.sparsities]
        collate = collator(self.loaded.tokenizer)
        expected = estimate(
            settings, self.loaded.model, self.shape, specs, self.rows["train"], self.rows["selection"], collate
        )
        self.listener.estimated(expected)

        job = Job(
            settings=settings,
            folder=self.folder,
            architecture=self.architecture,
            teacher=self.loaded.model,
            tokenizer=self.loaded.tokenizer,
            task=self.task,
            outputs=self.outputs,
            train_rows=self.rows["train"],
            selection_rows=self.rows["selection"],
            shape=self.shape,
            candidates=specs,
            progress=self.listener.stage,
        )
        outcome = SCHEDULES[settings.schedule](job)
        return self._save(job, outcome, on_selection)

    def _split(self, data: TaskData) -> None:
        """Rows to train on, to calibrate on, to select on, to report on."""
        settings = self.settings
        train, validation = data.train, data.validation
        assert train is not None and validation is not None
        names = dict(data.splits)
        if settings.select_on == "validation":
            selection, names["selection"] = validation, data.splits["validation"]
        elif labelled_rows := sum(label is not None for label in train["label"]):
            fraction = settings.selection_fraction or _selection_fraction(labelled_rows)
            train, selection = hold_out(train, fraction, SELECTION_MAXIMUM, settings.seed)
            names["selection"] = f"held out of {data.splits['train']}"
        else:
            validation, selection = hold_out(validation, 0.5, SELECTION_MAXIMUM, settings.seed)
            names["selection"] = f"held out of {data.splits['validation']}"
            self.listener.note(
                f"the training rows have no labels: {len(selection)} validation rows serve for calibration and "
                f"selection, the other {len(validation)} for the final figures."
            )
        labelled = [i for i, label in enumerate(train["label"]) if label is not None]
        source = train.select(labelled) if labelled else selection
        names["calibration"] = names["train" if labelled else "selection"]
        drawn = np.random.default_rng((settings.seed, 1)).permutation(len(source))[: settings.calibration_rows]
        self.rows = {
            name: encode(rows, self.loaded.tokenizer, settings.max_length)
            for name, rows in (
                ("train", train),
                ("calibration", source.select(sorted(drawn.tolist()))),
                ("selection", selection),
                ("validation", validation),
            )
        }
        self.row_sources = names

    def _importance(self) -> Importance:
        file = self.folder / "importance.safetensors"
        if file.is_file():
            with safe_open(file, "pt") as stored:
                self.costs["importance"] = Cost(**json.loads(stored.metadata()["cost"]))
            return Importance.load(file)
        self.listener.note(f"importance of heads and neurons on {len(self.rows['calibration'])} rows")
        cost = self.costs["importance"] = Cost()
        with measured(cost):
            importance = compute_importance(
                self.loaded.model, self.architecture, self._calibration_batches(), self._task_loss
            )
        length = int(np.mean(self.rows["calibration"]["length"]))
        # Forward, and backward to the activations alone.
        cost.flops = 2 * self.shape.forward_flops(self.full, len(self.rows["calibration"]), length)
        importance.save(file, {"cost": json.dumps(asdict(cost))})
        return importance

    def _calibration_batches(self) -> Any:
        rows, collate = self.rows["calibration"], collator(self.loaded.tokenizer)
        for _, batch in batches_by_length(rows, collate, self.settings.batch_size):
            yield {**model_inputs(batch, self.device), "labels": batch["labels"].to(self.device)}

    def _task_loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return task_loss(logits[:, self.outputs], labels)

    def _evaluate(self, model: Any, rows: datasets.Dataset) -> dict[str, float]:
        logits = predict(model.to(self.device), rows, collator(self.loaded.tokenizer), 2 * self.settings.batch_size)
        return self.task.evaluate(logits[:, self.outputs], np.asarray(rows["label"]))

    def _save(self, job: Job, outcome: Outcome, teacher_on_selection: dict[str, float]) -> CompressionResult:
        tokenizer, folder = self.loaded.tokenizer, self.folder
        rows = [
            {
                "stage": stage,
                **asdict(c.spec),
                "sizes": asdict(c.sizes),
                "metrics": c.metrics,
                "metric": c.metric,
                "tradeoff": c.tradeoff,
                "step": c.step,
                "chosen": any(a.candidate is c for a in outcome.assistants),
            }
            for stage, table in enumerate(outcome.candidates, start=1)
            for c in table
        ]
        write_json(folder / "candidates.json", rows)
        self.listener.note("evaluating teacher, assistant and student on the validation rows")
        teacher = ModelResult(
            Path(self.settings.teacher),
            self.full,
            self.shape.sizes(self.full),
            self._evaluate(self.loaded.model, self.rows["validation"]),
            teacher_on_selection,
        )
        assistants = []
        for number, assistant in enumerate(outcome.assistants, start=1):
            path = folder / ("assistant" if number == 1 else f"assistant-{number}")
            save_small(assistant.model.cpu(), tokenizer, path)
            assistants.append(self._model_result(assistant.model, path, assistant.candidate))
        save_small(outcome.student.cpu(), tokenizer, folder / "student")
        student = ModelResult(
            folder / "student",
            job.target,
            self.shape.sizes(job.target),
            self._evaluate(outcome.student, self.rows["validation"]),
            outcome.selection_metrics,
        )
        costs = {**self.costs, **outcome.costs}
        results = {
            "task": {"name": self.task.name, "kind": self.task.kind, "metrics": list(self.task.metrics)},
            "rows": {name: {"source": self.row_sources[name], "count": len(rows)} for name, rows in self.rows.items()},
            "teacher": plain(teacher),
            "assistants": [plain(a) for a in assistants],
            "student": plain(student),
            "candidates": rows,
            "history": outcome.history,
            "cost": {
                "total": asdict(sum(costs.values(), Cost())),
                "stages": {name: asdict(cost) for name, cost in costs.items()},
            },
            "machine": f"{processor()}, {self.device.type}, torch threads {torch.get_num_threads()}",
            "settings": dataclasses.asdict(self.settings),
            "versions": versions(),
            "warnings": self.warnings,
        }
        write_report(folder / "report.html", results)
        # Last: a folder with results.json is a finished run.
        write_json(folder / "results.json", results)
        if not self.settings.keep_checkpoints:
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        return read_result(folder)

    def _model_result(self, model: Any, path: Path, candidate: Candidate) -> ModelResult:
        metrics = self._evaluate(model, self.rows["validation"])
        return ModelResult(path, candidate.spec, candidate.sizes, metrics, candidate.metrics)


def _selection_fraction(labelled_rows: int) -> float:
    # Candidates differ by a few points; a metric on fewer than about 500 rows cannot tell them apart.
    return max(0.1, min(0.25, 500 / labelled_rows))
