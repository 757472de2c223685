"""What every schedule works on, and what it hands back."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from minidisc import ranks
from minidisc.architectures import Architecture
from minidisc.arguments import trainer_arguments
from minidisc.confidence import bootstrap
from minidisc.config import CompressSettings, TrainingSettings
from minidisc.extraction import extract
from minidisc.files import new_file
from minidisc.importance import Importance
from minidisc.layer_dropping import drop_layers
from minidisc.layers import state_to_save
from minidisc.losses import WITH_RELATIONS, WITH_STATES, WITHOUT_TEACHER
from minidisc.measure import Shape
from minidisc.memory import free_weights
from minidisc.nested import order_by_importance
from minidisc.results import Cost
from minidisc.selection import Candidate, tradeoff
from minidisc.subnetworks import SubnetworkSpec
from minidisc.tasks import Task
from minidisc.teaching import OutputStore
from minidisc.tracking import tracked
from minidisc.trainer import SandwichArguments, SandwichTrainer
from minidisc.values import fingerprint

_STAGE_SETTINGS = (
    *(f.name for f in dataclasses.fields(TrainingSettings) if f.name != "final_learning_rate"),
    "dropout",
    "train_embeddings",
    "loss",
    "teacher_cache",
    "teacher_top_k",
)


@dataclass(frozen=True)
class Network:
    """A network; ``weights`` names what its weights are cut from, ``width`` to what, "" being all of it."""

    weights: str
    model: Any
    width: str = ""


@dataclass
class Job:
    """A teacher, ordered by importance, the rows, and the candidates; the last candidate is the student's size.

    ``spec(sparsity)`` gives the sub-network of any sparsity, ``cut(importance, sparsity)`` that of a network that has
    other scores than the teacher. ``pool`` are the sizes that a first sandwich trains: the candidates, and where runs
    for several targets share it, the other targets' too; it trains those in ``always`` at every step, which are all
    the targets' sizes. ``base`` is a hash of all that is the same for every stage. ``importance(model, spec, file)``
    scores a network of the widths ``spec``, or reads the scores that ``file`` holds. ``progress(stage)`` returns the
    callback that `minidisc.resumable.ResumableTrainer` takes; ``note(line)`` says what else takes a while.
    ``need_teacher`` brings back the teacher's weights, which ``drop_teacher`` drops. ``shared`` says that ``folder``
    holds the stages of many runs, which are then told apart by what made them, so that equal ones are trained once.
    ``stored`` says that teachers' outputs are computed once, and kept beside the stages' checkpoints.
    """

    settings: CompressSettings
    folder: Path
    architecture: Architecture
    teacher: Network
    tokenizer: Any
    task: Task
    outputs: Sequence[int] | None
    train_rows: Any
    selection_rows: Any
    shape: Shape
    candidates: list[SubnetworkSpec]
    pool: list[SubnetworkSpec]
    always: list[SubnetworkSpec]
    spec: Callable[[float], SubnetworkSpec]
    cut: Callable[[Importance, float], SubnetworkSpec]
    base: str
    importance: Callable[[Any, SubnetworkSpec, Path], tuple[Importance, Cost]]
    progress: Callable[[str], Any]
    note: Callable[[str], None]
    need_teacher: Callable[[], None]
    drop_teacher: Callable[[], None]
    shared: bool = False
    stored: bool = False

    @property
    def target(self) -> SubnetworkSpec:
        """The student's size."""
        return self.candidates[-1]

    def steps(self, number: int) -> int:
        """Optimiser steps of the stage of this number, from 1 on, if nothing stops it early."""
        rows = len(self.train_rows)
        return self.settings.of_stage(rows, number).steps(rows)

    def untrained_student(self) -> tuple[Network, SubnetworkSpec]:
        """What a student without assistant is cut from, and its widths: the teacher, or its every k-th layer."""
        if self.settings.student == "layers":
            model, spec = drop_layers(self.teacher.model, self.architecture, self.target.sparsity)
            return Network(f"{len(spec.heads)} layers", model), spec
        return self.teacher, self.target

    def teachers_with(self, assistant: Network) -> list[Network]:
        """Who teaches once there is an assistant."""
        return {"assistant": [assistant], "teacher": [self.teacher], "both": [assistant, self.teacher]}[
            self.settings.second_teacher
        ]

    def reordered(self, assistant: Network, spec: SubnetworkSpec) -> tuple[Network, SubnetworkSpec, Cost]:
        """The assistant ordered by its own importance, what the student keeps of it, and what the scores cost."""
        key = fingerprint([self.base, assistant.weights, assistant.width])
        file = self.folder / "checkpoints" / f"importance-{key}.safetensors"
        model = copy.deepcopy(assistant.model)
        importance, cost = self.importance(model, spec, file)
        order_by_importance(model, self.architecture, importance)
        target = self.cut(importance, self.target.sparsity)
        return Network(f"{assistant.weights} {assistant.width} reordered", model), target, cost

    def train(
        self,
        stage: str,
        teachers: Sequence[Network],
        source: Network,
        candidates: Sequence[SubnetworkSpec],
        number: int | None = None,
        left_out: int = 0,
    ) -> Stage:
        """Train candidates of ``source`` against ``teachers``; or take up, or read, what was trained before.

        The shared network is only as wide as the largest candidate, since nothing beyond it would ever be used. The
        teacher is in memory only until its outputs are stored, if they are. ``number`` says which stage it is, from
        1 on; the last one, which trains the student, if not given, before which so many were ``left_out``.
        """
        rows = len(self.train_rows)
        settings = self.settings.of_stage(rows, number, left_out)
        key = fingerprint(
            {
                **self._made_by(settings, candidates),
                "teachers": [] if settings.loss in WITHOUT_TEACHER else [(t.weights, t.width) for t in teachers],
                # Cut to the candidates, whatever width it is handed over in.
                "source": source.weights,
            }
        )
        stores = self._stores(teachers, source) if self.stored and settings.repeats(rows) else {}
        # A store that is filled may have to make room for another one, and is then filled again.
        all_stored = bool(stores) and all(store.filled for store in stores.values())
        if self.teacher in (source, *(() if all_stored else teachers)):
            self.need_teacher()
        folder = self.folder / "checkpoints" / (f"{stage}-{key}" if self.shared else stage)
        trainer = SandwichTrainer(
            extract(source.model, min(candidates, key=lambda c: c.sparsity)),
            SandwichArguments(
                **trainer_arguments(settings, folder),
                candidates_per_step=settings.rule_of_step(len(candidates)),
                dropout=settings.dropout,
                train_embeddings=settings.train_embeddings,
                loss=settings.loss,
                teacher_top_k=settings.teacher_top_k,
                tradeoff_lambda=settings.tradeoff_lambda,
                run_name=f"{Path(settings.output_dir).name} {folder.name}",
            ),
            teacher=[network.model for network in teachers],
            candidates=candidates,
            task=self.task,
            outputs=self.outputs,
            train_rows=self.train_rows,
            selection_rows=self.selection_rows,
            tokenizer=self.tokenizer,
            progress=self.progress(stage),
            always=self._always_of(candidates),
            stores=list(stores.values()),
            stored=self.drop_teacher,
        )
        board = self.folder / "tensorboard" / folder.name
        with tracked(trainer, settings.report_to or (), board, trainer.finished):
            trainer.fit()
        # Whatever is wanted of it is in its files.
        free_weights(trainer.model)
        if self.shared or not settings.keep_checkpoints:
            trainer.keep_snapshots_only()
        finished = Stage(key, trainer, {name: store.cost for name, store in stores.items()})
        if settings.keep_sizes and not self.shared:
            finished.keep_sizes(stage, self.folder)
        return finished

    def key_of_first(self, candidates: Sequence[SubnetworkSpec]) -> str:
        """A hash of what makes the first stage of these candidates, the same for all jobs that will share it."""
        settings = self.settings.of_stage(len(self.train_rows), 1)
        return fingerprint([self._made_by(settings, candidates), settings.schedule, settings.student])

    def _made_by(self, settings: CompressSettings, candidates: Sequence[SubnetworkSpec]) -> dict[str, Any]:
        """What makes a stage, but for who teaches it and what it is cut from."""
        sizes = [asdict(c) for c in candidates]
        if settings.student == "layers":
            # Several targets may keep the same few layers, which are then trained once.
            sizes = [{**size, "sparsity": None} for size in sizes]
        return {
            "base": self.base,
            "settings": {name: getattr(settings, name) for name in _STAGE_SETTINGS},
            # Only where there is one, so that stages trained before there could be are found again.
            **({"final_learning_rate": settings.final_learning_rate} if settings.final_learning_rate else {}),
            "candidates_per_step": settings.rule_of_step(len(candidates)),
            "candidates": sizes,
            "always": [c.sparsity for c in self._always_of(candidates)],
        }

    def _always_of(self, candidates: Sequence[SubnetworkSpec]) -> list[SubnetworkSpec]:
        return [spec for spec in self.always if spec in candidates]

    def _stores(self, teachers: Sequence[Network], source: Network) -> dict[str, OutputStore]:
        """Where each teacher's outputs are kept; which those are depends on the loss and on the student's depth."""
        settings = self.settings
        if settings.loss in WITHOUT_TEACHER:
            return {}
        depth = Shape.of(source.model, self.architecture).depth
        kinds = settings.loss in WITH_STATES, settings.loss in WITH_RELATIONS
        stores = {}
        for teacher in teachers:
            of = teacher.weights, teacher.width, depth, kinds, settings.precision, settings.teacher_top_k
            key = fingerprint([self.base, *of])
            name = f"outputs of {teacher.width or teacher.weights}"
            stores[name] = OutputStore(
                self.folder / "checkpoints" / "outputs" / key,
                settings.teacher_cache * 2**30,
                settings.teacher_top_k,
                partial(self.note, f"{name} on {len(self.train_rows)} training rows"),
            )
        return stores


@dataclass(frozen=True)
class Stage:
    """A finished stage: what made it, as a hash, its trainer, and what its teachers' outputs cost that are kept.

    ``kept`` has a row for every size whose weights the run keeps.
    """

    key: str
    trainer: SandwichTrainer
    outputs: dict[str, Cost]
    kept: list[dict[str, Any]] = field(default_factory=list)

    def network(self, spec: SubnetworkSpec, width: SubnetworkSpec | None = None) -> Network:
        """The dense network of ``width`` (``spec`` itself by default) with the weights that were best for ``spec``."""
        width = width or spec
        index = self.trainer.networks.index(spec.name)
        best = self.trainer.best[index]
        assert best is not None
        model = extract(self.trainer.model, width, self.trainer.best_state(index))
        return Network(f"{self.key} step {best.step}", model, width.name)

    def table(self, job: Job) -> list[Candidate]:
        """A row for every sub-network that was trained."""
        rows = []
        for spec, best in zip(self.trainer.candidates, self.trainer.best, strict=True):
            assert best is not None
            t = tradeoff(best.metrics["metric"], spec.sparsity, job.settings.tradeoff_lambda)
            rows.append(Candidate(spec, job.shape.sizes(spec), best.metrics, best.step, t))
        return rows

    def keep_sizes(self, name: str, run: Path) -> None:
        """Write the best weights of every sub-network to ``run / "sizes"``, where they outlive the checkpoints.

        Those that were best at the same step are prefixes of each other, so the widest of them holds them all.
        """
        for spec, best in zip(self.trainer.candidates, self.trainer.best, strict=True):
            assert best is not None
            file = f"sizes/{name}-step-{best.step}.safetensors"
            row = {"stage": name, **asdict(spec), "selection_metrics": best.metrics, "step": best.step, "file": file}
            # The student's may be another, if it was cut by the assistant's own importance.
            order = getattr(cast(Any, self.trainer.model).config, "head_order", None)
            self.kept.append({**row, "head_order": order} if order else row)
        for file in {row["file"] for row in self.kept}:
            widest = min((row for row in self.kept if row["file"] == file), key=lambda row: row["sparsity"])
            spec = SubnetworkSpec(widest["sparsity"], widest["heads"], widest["neurons"])
            if ranks.rank() == 0 and not _is_whole(run / file):
                with new_file(run / file) as temporary:
                    save_file(state_to_save(self.network(spec).model), temporary)

    def candidates(self, job: Job, specs: Sequence[SubnetworkSpec]) -> list[Candidate]:
        """The rows of ``specs``, with each one's chances of being chosen among them."""
        rows = [row for row in self.table(job) if row.spec in specs]
        found = bootstrap(
            job.task,
            self.trainer.best_logits([row.spec for row in rows]),
            self.trainer.selection_labels(),
            [row.spec.sparsity for row in rows],
            job.settings.tradeoff_lambda,
            job.settings.seed,
        )
        return [dataclasses.replace(row, confidence=c) for row, c in zip(rows, found, strict=True)]


def _is_whole(file: Path) -> bool:
    """Whether a file of weights is there, and as long as it says that it is."""
    try:
        with safe_open(file, "pt"):
            return True
    except (FileNotFoundError, SafetensorError):
        return False


@dataclass
class Assistant:
    """A teacher assistant: the row of the table it was chosen from, and the dense network."""

    candidate: Candidate
    model: Any


@dataclass
class Outcome:
    """What a schedule made.

    ``spec`` are the student's widths, ``selection_metrics`` its metrics on the selection rows. ``candidates`` holds
    the table of each sandwich from which an assistant was chosen, ``history`` every evaluation of every stage,
    ``costs`` each stage's, ``kept`` a row for every size whose weights are kept. ``trials`` are what an exhaustive
    search tried: the assistant's sparsity, its metrics and its student's, on the selection rows.
    """

    student: Any = None
    spec: SubnetworkSpec | None = None
    selection_metrics: dict[str, float] = field(default_factory=dict)
    assistants: list[Assistant] = field(default_factory=list)
    candidates: list[list[Candidate]] = field(default_factory=list)
    history: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)
    kept: list[dict[str, Any]] = field(default_factory=list)
    trials: list[dict[str, Any]] = field(default_factory=list)

    def add_stage(self, name: str, stage: Stage) -> None:
        """Note a finished stage's evaluations, cost and sizes."""
        self.history[name] = stage.trainer.history
        self.kept += stage.kept
        self.costs.update({**stage.outputs, name: stage.trainer.cost})

    def reorder(self, job: Job, assistant: Network) -> tuple[Network, SubnetworkSpec]:
        """What the student is cut from, and to which widths, by the last assistant's own importance."""
        source, target, cost = job.reordered(assistant, self.assistants[-1].candidate.spec)
        self.costs[f"importance of {assistant.width}"] = cost
        return source, target

    def take_student(self, stage: Stage, spec: SubnetworkSpec) -> None:
        """Take the student from a finished stage."""
        best = stage.trainer.best[stage.trainer.networks.index(spec.name)]
        assert best is not None
        self.student, self.spec, self.selection_metrics = stage.network(spec).model, spec, best.metrics
