"""What every schedule needs before it can train: teacher, rows, importance, candidates."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from safetensors import safe_open

from minidisc.architectures import architecture_for
from minidisc.config import CompressSettings, DataSettings, fingerprint
from minidisc.devices import resolve_device
from minidisc.errors import UserError
from minidisc.importance import Importance, compute_importance
from minidisc.layer_dropping import check_droppable
from minidisc.listening import Listener
from minidisc.losses import WITH_LABELS, task_loss
from minidisc.measure import Cost, Shape, measured
from minidisc.memory import free_weights, give_weights, is_freed, release_memory
from minidisc.nested import order_by_importance
from minidisc.prediction import batches_by_length, model_inputs, predict
from minidisc.preflight import Estimate, check_length, estimate, teacher_warnings
from minidisc.results import ModelResult
from minidisc.schedules import Job, Network, planned
from minidisc.subnetworks import (
    SubnetworkSpec,
    candidate_sparsities,
    check_grid,
    even_scores,
    full_width,
    make_spec,
)
from minidisc.tasks import TaskData, align_labels, collator, encode, hold_out, label_array, load_data
from minidisc.teachers import Loaded, check_kind, fingerprint_of, kind_of, load_classifier, load_config
from minidisc.teaching import stored_bytes

SELECTION_MAXIMUM = 2000
# Beside where the rows are, what decides which go where, and what is cut.
_BASE = (
    *(f.name for f in dataclasses.fields(DataSettings)),
    "seed",
    "batch_size",
    "select_on",
    "selection_fraction",
    "calibration_rows",
    "neuron_multiple",
    "importance_on",
)


class Preparation:
    """Teacher, rows and candidates of one run, or of several that differ in what follows.

    Args:
        settings: of the run.
        listener: is told what happens.
        targets: all target sparsities, if not the settings' alone.
        draw: seed that draws the ``max_train_rows``, if not the settings'.

    Raises:
        UserError: something given cannot be used.
    """

    def __init__(
        self,
        settings: CompressSettings,
        listener: Listener,
        targets: tuple[float, ...] = (),
        draw: int | None = None,
    ) -> None:
        self.settings, self.listener = settings, listener
        self._begun = time.perf_counter(), time.process_time()
        config = load_config(settings.teacher, settings.trust_remote_code)
        self.architecture = architecture_for(config.model_type)
        check_length(config, self.architecture, settings.max_length)
        drawn = settings if draw is None else dataclasses.replace(settings, seed=draw)
        data = load_data(drawn, kind=kind_of(config), model_names=config.id2label.values(), need_labels=False)
        self.task = data.task
        check_kind(config, self.task.kind)
        self.outputs = align_labels(self.task, config.id2label, config.num_labels) or [0]
        self.loaded: Loaded = load_classifier(settings.teacher, settings.trust_remote_code, kind=self.task.kind)
        self.fingerprints = {"teacher_weights": fingerprint_of(settings.teacher), "rows": data.fingerprint}
        self._split(data)
        self.shape = Shape.of(self.loaded.model, self.architecture)
        self.full = full_width(self.shape.layers, self.shape.heads, self.shape.neurons)
        self.targets = tuple(sorted(targets or (settings.target_sparsity,)))
        self.check(settings)
        self.warnings: list[str] = []
        self.device = resolve_device(settings.device)
        self.loaded.model.to(self.device)
        self.cost = Cost()
        self._teacher_result: ModelResult | None = None

    def rank(self, file: Path) -> None:
        """Judge the teacher, score heads and neurons (or read the scores that ``file`` holds), order the teacher."""
        self.on_selection = self.evaluate(self.loaded.model, "selection")
        labels = label_array(self.rows["selection"])
        self.warnings = teacher_warnings(
            self.task, self.on_selection["metric"], labels, self.loaded.fresh, self.loaded.model.config.id2label
        )
        for warning in self.warnings:
            self.listener.warn(warning)
        importance, self.cost = self._importance(self.loaded.model, self.full, file)
        order_by_importance(self.loaded.model, self.architecture, importance)
        self._order = importance
        self._scores = importance.heads.numpy(), importance.neurons.numpy()

    def rank_evenly(self) -> None:
        """Take all layers for equally important, where it is only to be known what a run will take."""
        self._scores = even_scores(self.shape.layers, self.shape.heads, self.shape.neurons)

    def need_teacher(self) -> None:
        """Bring the ordered teacher back into memory, if it is not there."""
        if is_freed(self.loaded.model):
            settings = self.settings
            again = load_classifier(settings.teacher, settings.trust_remote_code, kind=self.task.kind).model
            order_by_importance(again, self.architecture, self._order)
            give_weights(self.loaded.model, again.to(self.device))

    def drop_teacher(self) -> None:
        """Drop the teacher's weights, once it is known how good it is."""
        self.teacher_result()
        free_weights(self.loaded.model)

    def spec(self, sparsity: float) -> SubnetworkSpec:
        """The sub-network of a sparsity."""
        return make_spec(*self._scores, sparsity, self.settings.neuron_multiple)

    def check(self, settings: CompressSettings) -> None:
        """Refuse what this teacher or these rows cannot be used for.

        Raises:
            UserError: sparsities that the model is too small to tell apart, or labels needed that are not there.
        """
        if settings.student == "layers":
            check_droppable(self.architecture)
        sparsities = {*self._pool(settings), *(settings.assistants or ())}
        check_grid(sorted(sparsities), sum(self.full.heads), sum(self.full.neurons))
        candidates = candidate_sparsities(settings.target_sparsity, settings.grid)[:-1]
        if settings.schedule == "minidisc" and not {*(settings.assistants or ())} <= {*candidates}:
            raise UserError(
                f"--assistants holds a sparsity that is no candidate; allowed are "
                f"{', '.join(f'{s:g}' for s in candidates)} (--grid has others)."
            )
        missing = sum(label is None for label in self.rows["train"]["label"])
        if missing and (settings.loss in WITH_LABELS or settings.schedule == "finetune"):
            raise UserError(
                f"{missing} training rows have no label, which --schedule finetune, --loss labels and --loss pkd "
                "need; add labels, or use another."
            )

    def job(self, settings: CompressSettings, folder: Path, shared: bool = False) -> Job:
        """The job of a schedule; ``settings`` may differ from those of the preparation in what comes after it."""
        candidates = [self.spec(s) for s in candidate_sparsities(settings.target_sparsity, settings.grid)]
        pool = [self.spec(s) for s in self._pool(settings)]
        return Job(
            settings=settings,
            folder=folder,
            architecture=self.architecture,
            teacher=Network("teacher", self.loaded.model),
            tokenizer=self.loaded.tokenizer,
            task=self.task,
            outputs=self.outputs,
            train_rows=self.rows["train"],
            selection_rows=self.rows["selection"],
            shape=self.shape,
            candidates=candidates,
            pool=pool if shared else candidates,
            always=[self.spec(s) for s in (self.targets if shared else [settings.target_sparsity])],
            spec=self.spec,
            base=fingerprint({**{name: getattr(self.settings, name) for name in _BASE}, **self.fingerprints}),
            importance=self._importance,
            progress=self.listener.stage,
            need_teacher=self.need_teacher,
            # Other runs that share the stages need it again.
            drop_teacher=(lambda: None) if shared else self.drop_teacher,
            shared=shared,
            stored=self.storable(settings),
        )

    def storable(self, settings: CompressSettings) -> bool:
        """Whether the outputs of the teacher fit where they may be kept, and would be read more than once.

        They cannot be kept where padding on the left moves the tokens to other positions in every batch.
        """
        lengths = self.rows["train"]["length"]
        fits = stored_bytes(lengths, self.shape, settings.loss) <= settings.teacher_cache * 2**30
        again = settings.steps(len(lengths)) > settings.steps_per_epoch(len(lengths))
        return fits and again and self.loaded.tokenizer.padding_side == "right"

    def plan(self, job: Job) -> Estimate:
        """What a run will take in all, before anything is known of importance."""
        wall, cpu = time.perf_counter() - self._begun[0], time.process_time() - self._begun[1]
        rest = self.estimate(job)
        return dataclasses.replace(rest, seconds=wall + rest.seconds, cpu_seconds=cpu + rest.cpu_seconds)

    def estimate(self, job: Job) -> Estimate:
        """What a job will take from now on."""
        return estimate(
            job.settings,
            self.loaded.model,
            self.architecture,
            self.shape,
            planned(job),
            self.rows,
            collator(job.tokenizer),
            job.stored,
            ranked=hasattr(self, "_order"),
        )

    def evaluate(self, model: Any, rows: str) -> dict[str, float]:
        """Metrics of a model on ``selection`` or ``validation`` rows."""
        collate, size = collator(self.loaded.tokenizer), 2 * self.settings.batch_size
        logits = predict(model.to(self.device), self.rows[rows], collate, size, self.outputs)
        return self.task.evaluate(logits, label_array(self.rows[rows]))

    def teacher_result(self) -> ModelResult:
        """The teacher's metrics on the validation rows, and its sizes."""
        if self._teacher_result is None:
            metrics = self.evaluate(self.loaded.model, "validation")
            teacher, sizes = Path(self.settings.teacher), self.shape.sizes(self.full)
            self._teacher_result = ModelResult(teacher, self.full, sizes, metrics, self.on_selection)
        return self._teacher_result

    def row_counts(self) -> dict[str, dict[str, Any]]:
        """Source and number of the rows of each use."""
        return {name: {"source": self._sources[name], "count": len(rows)} for name, rows in self.rows.items()}

    def _pool(self, settings: CompressSettings) -> list[float]:
        """Sparsities of all targets' candidates."""
        return sorted({s for target in self.targets for s in candidate_sparsities(target, settings.grid)})

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
        usable = [
            i for i, label in enumerate(train["label"]) if label is not None or settings.importance_on == "teacher"
        ]
        source = train.select(usable) if usable else selection
        names["calibration"] = names["train" if usable else "selection"]
        drawn = np.random.default_rng((settings.seed, 1)).permutation(len(source))[: settings.calibration_rows]
        self.rows: dict[str, datasets.Dataset] = {
            name: encode(rows, self.loaded.tokenizer, settings.max_length)
            for name, rows in (
                ("train", train),
                ("calibration", source.select(sorted(drawn.tolist()))),
                ("selection", selection),
                ("validation", validation),
            )
        }
        self._sources = names

    def _importance(self, model: Any, spec: SubnetworkSpec, file: Path) -> tuple[Importance, Cost]:
        """Scores of a network of the widths ``spec``, and what they cost; read from ``file`` if they are there."""
        if file.is_file():
            with safe_open(file, "pt") as stored:
                return Importance.load(file), Cost(**json.loads(stored.metadata()["cost"]))
        rows = self.rows["calibration"]
        self.listener.note(f"importance of heads and neurons on {len(rows)} rows")
        # Forward, and backward to the activations alone.
        passes, own, cost = 2, self.settings.importance_on == "teacher", Cost()
        with measured(cost):
            if own:
                rows, passes = self._labelled_by(model, rows), 3
            widths = self.shape.heads, self.shape.neurons
            batches, checkpointing = self._calibration_batches(rows), self.settings.gradient_checkpointing
            model.to(self.device)
            importance = compute_importance(model, self.architecture, batches, self._task_loss, widths, checkpointing)
        release_memory()
        cost.flops = passes * self.shape.forward_flops(spec, len(rows), int(np.mean(rows["length"])))
        importance.save(file, {"cost": json.dumps(asdict(cost))})
        return importance, cost

    def _labelled_by(self, model: Any, rows: datasets.Dataset) -> datasets.Dataset:
        """The rows with a network's own predictions as labels."""
        collate, size = collator(self.loaded.tokenizer), 2 * self.settings.batch_size
        logits = predict(model, rows, collate, size, self.outputs)
        labels: Any
        if self.task.kind == "token-classification":
            labels = [words.argmax(1).tolist() for words in logits]
        elif self.task.kind == "regression":
            # The loss against the prediction itself has no gradient; one off it, it has the prediction's.
            labels = (logits[:, 0] + 1).tolist()
        else:
            labels = logits.argmax(1).tolist()
        return rows.remove_columns("label").add_column("label", labels)

    def _calibration_batches(self, rows: datasets.Dataset) -> Iterator[dict[str, torch.Tensor]]:
        for _, batch in batches_by_length(rows, collator(self.loaded.tokenizer), self.settings.batch_size):
            yield {**model_inputs(batch, self.device), "labels": batch["labels"].to(self.device)}

    def _task_loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return task_loss(logits[..., self.outputs], labels)


def _selection_fraction(labelled_rows: int) -> float:
    # Candidates differ by a few points; a metric on fewer than about 500 rows cannot tell them apart.
    return max(0.1, min(0.25, 500 / labelled_rows))
