"""What every schedule needs before it can train: teacher, rows, importance, candidates."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from minidisc.architectures import architecture_for
from minidisc.config import CompressSettings, RowSettings
from minidisc.contrast import contrast
from minidisc.devices import resolve_device
from minidisc.errors import ChangedError
from minidisc.extraction import note_length
from minidisc.importance import Importance
from minidisc.listening import Listener
from minidisc.low_rank import check_rank, factorise
from minidisc.measure import Shape, processor
from minidisc.memory import free_weights, give_weights, is_freed
from minidisc.modeling.classes import plain_config
from minidisc.nested import order_by_importance
from minidisc.own_text import with_own_text
from minidisc.prediction import predict
from minidisc.preflight import Estimate, estimate, flops_of_all_trials
from minidisc.refusals import check_usable, scale_warning, teacher_warnings
from minidisc.results import Cost, ModelResult, Sizes
from minidisc.rows import Rows
from minidisc.schedules import Job, Network, planned
from minidisc.scoring import Scorer
from minidisc.subnetworks import SubnetworkSpec, candidate_sparsities, even_scores, make_spec
from minidisc.tasks import CAUSAL_LM, collator, label_array, load_data, model_outputs
from minidisc.teachers import (
    Loaded,
    check_kind,
    check_length,
    check_tokens,
    fingerprint_of,
    halved,
    kind_of,
    load_config,
    load_model,
)
from minidisc.teaching import stored_bytes
from minidisc.tokenization import tokenizer_fingerprint
from minidisc.tracking import check_trackers
from minidisc.values import fingerprint
from minidisc.vocabulary import dropped, named_pieces, needed_pieces, trim_model, trim_tokenizer

# Beside where the rows are, what decides which go where, and what is cut.
_BASE = (
    *(f.name for f in dataclasses.fields(RowSettings)),
    "seed",
    "batch_size",
    "select_on",
    "selection_fraction",
    "calibration_rows",
    "neuron_multiple",
    "importance_on",
    "widths",
    "trim_vocabulary",
    "embedding_rank",
)


class Preparation:
    """Teacher, rows and candidates of one run, or of several that differ in what follows.

    Args:
        settings: of the run.
        listener: is told what happens.
        targets: all target sparsities, if not the settings' alone.
        draw: seed that draws the ``max_train_rows``, if not the settings'.
        again: whether there was one of the same rows before, so that what there is to say of them was said.

    Raises:
        UserError: something given cannot be used.
    """

    def __init__(
        self,
        settings: CompressSettings,
        listener: Listener,
        targets: tuple[float, ...] = (),
        draw: int | None = None,
        again: bool = False,
    ) -> None:
        self.settings, self.listener = settings, listener
        self._begun = time.perf_counter(), time.process_time()
        check_trackers(settings.report_to or ())
        config = load_config(settings.teacher, settings.trust_remote_code)
        self.architecture = architecture_for(config.model_type)
        check_length(config, settings.max_length)
        drawn = settings if draw is None else dataclasses.replace(settings, seed=draw)
        if settings.train_text:
            drawn = with_own_text(drawn, config, listener.note)
        data = load_data(drawn, kind=kind_of(config), model_names=config.id2label.values(), need_labels=False)
        self.task = data.task
        check_kind(config, self.task.kind)
        self.outputs = model_outputs(self.task, config)
        self.loaded: Loaded = load_model(settings.teacher, settings.trust_remote_code, kind=self.task.kind)
        # All that is cut out of the teacher has its configuration.
        note_length(self.loaded.model, min(settings.max_length, self.loaded.tokenizer.model_max_length))
        self.device = resolve_device(settings.device)
        self.loaded.model.to(self.device)
        self.fingerprints = {
            "teacher_weights": fingerprint_of(settings.teacher),
            "tokenizer": tokenizer_fingerprint(self.loaded.tokenizer),
            "rows": data.fingerprint,
        }
        self.rows = Rows(settings, data, listener.note, drawn.seed)
        self.rows.encode(self.task, self.loaded.tokenizer)
        for use, row in self.rows.counts().items():
            check_tokens(self.loaded, self.rows[use], row["source"])
        found = (data.warning(), *(cut.told(source) for source, cut in self.rows.cuts.items()))
        self.warnings: list[str] = []
        self.warnings_of: dict[str, list[str]] = {}
        for line in found:
            if line is not None and not again:
                self.warn(line)
        self._whole_sizes: Sizes | None = None
        self._teacher_logits: dict[str, np.ndarray] = {}
        self.vocabulary = self._trim_vocabulary() if settings.trim_vocabulary else None
        self.shape = Shape.of(self.loaded.model, self.architecture)
        self.full = self.shape.full()
        self.low_rank = self._lower_rank(settings.embedding_rank) if settings.embedding_rank else None
        self._scorer = Scorer(
            settings=settings,
            architecture=self.architecture,
            shape=self.shape,
            task=self.task,
            outputs=self.outputs,
            rows=self.rows["calibration"],
            collate=collator(self.loaded.tokenizer),
            device=self.device,
            note=listener.note,
        )
        self.targets = tuple(sorted(targets))
        if targets:
            self.check(settings)
        elif settings.target_sparsity is not None:
            self.aim(settings)
        self.half = halved(settings.teacher)
        self.cost = Cost()
        self.ranked = False

    def warn(self, line: str, of: str | None = None) -> None:
        """Tell the listener, and note it for the results; ``of`` is the folder of the model that alone is meant."""
        self.warnings.append(line)
        if of is not None:
            self.warnings_of.setdefault(of, []).append(line)
        self.listener.warn(line)

    def rank(self, file: Path) -> None:
        """Judge the teacher, score heads and neurons (or read the scores that ``file`` holds), order the teacher."""
        labels, metric = label_array(self.rows["selection"]), self.on_selection["metric"]
        larger = self.half if self.settings.save_dtype == "fp32" else None
        found = teacher_warnings(
            self.task, metric, labels, self.loaded.fresh, self.loaded.model.config.id2label, larger
        )
        if scale := scale_warning(self.task, self.teacher_logits("selection"), labels):
            found.append(scale)
        for warning in found:
            self.warn(warning)
        importance, self.cost = self._scorer.importance(self.loaded.model, self.full, file)
        order_by_importance(self.loaded.model, self.architecture, importance)
        self._importance_of_teacher = importance
        self.ranked = True

    def aim(self, settings: CompressSettings) -> None:
        """Take settings with a target sparsity, where a budget had to be solved for it.

        Raises:
            UserError: see `check`.
        """
        self.settings, self.targets = settings, (settings.target_sparsity,)
        self.check(settings)

    def rank_evenly(self) -> None:
        """Take all layers for equally important, where it is only to be known what a run will take."""
        self._importance_of_teacher = Importance(*map(torch.from_numpy, even_scores(self.full)))

    @property
    def mean_length(self) -> int:
        """Tokens of a training row, on average."""
        return round(float(np.mean(self.rows["train"]["length"][:])))

    @property
    def machine(self) -> str:
        """What figures are measured on: the processor, the device and a GPU's name, threads."""
        name = f" ({torch.cuda.get_device_name(self.device)})" if self.device.type == "cuda" else ""
        return f"{processor()}, {self.device.type}{name}, torch threads {torch.get_num_threads()}"

    def need_teacher(self) -> None:
        """Bring the ordered teacher back into memory, if it is not there.

        Raises:
            ChangedError: another one is in its place.
        """
        if is_freed(self.loaded.model):
            settings = self.settings
            again = load_model(settings.teacher, settings.trust_remote_code, kind=self.task.kind).model
            if fingerprint_of(settings.teacher) != self.fingerprints["teacher_weights"]:
                raise ChangedError(
                    f"the teacher in {settings.teacher} has changed since the run began; put the old one back and go "
                    "on with --resume, or begin anew in another --output-dir."
                )
            if self.settings.trim_vocabulary:
                trim_model(again, self._kept_pieces)
            order_by_importance(again, self.architecture, self._importance_of_teacher)
            give_weights(self.loaded.model, again.to(self.device))

    def drop_teacher(self) -> None:
        """Drop the teacher's weights, once it is known what it gives for the rows that are asked for later."""
        for rows in ("selection", "validation"):
            self.teacher_logits(rows)
        free_weights(self.loaded.model)

    def spec(self, sparsity: float) -> SubnetworkSpec:
        """The sub-network of a sparsity."""
        return self.cut(self._importance_of_teacher, sparsity)

    def cut(self, importance: Importance, sparsity: float) -> SubnetworkSpec:
        """The sub-network of a sparsity in a network with these scores."""
        return make_spec(
            importance.heads.numpy(),
            importance.neurons.numpy(),
            sparsity,
            self.settings.neuron_multiple,
            uniform=self.settings.widths == "uniform",
            needed=self.shape.needed,
        )

    def tell_form(self, settings: CompressSettings) -> None:
        """Say it, if students of uniform widths can be plain checkpoints in this family, but this one cannot.

        Args:
            settings: with the target sparsity, where a budget had to be solved for it.
        """
        if settings.widths != "uniform" or settings.student != "pruned" or not self.architecture.plain_if_uniform:
            return
        config, spec = self.loaded.model.config, self.spec(settings.target_sparsity)
        if plain_config(config, spec.heads, spec.neurons) is None:
            heads = f"{spec.heads[0]} of {self.shape.heads} heads a layer"
            self.listener.note(
                f"--widths uniform: transformers' own {type(config).__name__} does not take "
                f"{'embeddings of low rank' if self.low_rank else heads}: the student of "
                f"{spec.name} will be no plain checkpoint, and need its code file after all"
            )

    def check(self, settings: CompressSettings) -> None:
        """Refuse what this teacher or these rows cannot be used for.

        Raises:
            UserError: sparsities that the model is too small to tell apart, or labels needed that are not there.
        """
        check_usable(
            settings, self._pool(settings), self.loaded.model, self.architecture, self.full, self.task, self.rows
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
            cut=self.cut,
            base=fingerprint(
                {
                    **{name: getattr(self.settings, name) for name in _BASE},
                    **self.fingerprints,
                    "tokens": self.rows.tokens_fingerprint,
                }
            ),
            importance=self._scorer.importance,
            progress=self.listener.stage,
            note=self.listener.note,
            need_teacher=self.need_teacher,
            # Other runs that share the stages need it again.
            drop_teacher=(lambda: None) if shared else self.drop_teacher,
            shared=shared,
            stored=self.storable(settings),
        )

    def storable(self, settings: CompressSettings) -> bool:
        """Whether the outputs of the teacher can be kept, and would be read more than once."""
        rows = len(self.rows["train"])
        again = any(settings.of_stage(rows, number).repeats(rows) for number in range(1, settings.stages + 1))
        return again and self.fits(settings)

    def fits(self, settings: CompressSettings) -> bool:
        """Whether the outputs of the teacher fit where they may be kept, however often they are read.

        They cannot be kept where padding on the left moves the tokens to other positions in every batch; packed text
        needs none.
        """
        kept = settings.teacher_top_k
        if self.task.kind == CAUSAL_LM and kept is None:
            return False
        needed = stored_bytes(self.rows["train"]["length"][:], self.shape, settings.effective_loss, kept or 0)
        in_place = self.task.kind == CAUSAL_LM or self.loaded.tokenizer.padding_side == "right"
        return needed <= settings.teacher_cache * 2**30 and in_place

    def stored_lengths(self, settings: CompressSettings) -> list[int]:
        """Tokens of each row that the outputs of teachers are stored for; none if they are not."""
        return self.rows["train"]["length"][:] if self.storable(settings) else []

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
            ranked=self.ranked,
        )

    def flops_of_all_trials(self, job: Job) -> float | None:
        """What trying every candidate as the assistant would take; None where the run chooses none."""
        settings = job.settings
        if settings.schedule != "minidisc" or settings.assistants or settings.stages != 2 or len(job.candidates) < 2:
            return None
        return flops_of_all_trials(settings, self.shape, job.candidates, self.rows, job.stored)

    def logits(self, model: Any, rows: str) -> np.ndarray:
        """What a model gives for ``selection`` or ``validation`` rows, as `minidisc.tasks.Task.evaluate` takes it."""
        collate, size = collator(self.loaded.tokenizer), 2 * self.settings.batch_size
        return predict(model.to(self.device), self.rows[rows], collate, size, self.outputs)

    def teacher_logits(self, rows: str) -> np.ndarray:
        """What the teacher gives for ``selection`` or ``validation`` rows; computed once.

        On validation rows it is what it gives with all its pieces of words, those that students lack included.
        """
        if rows not in self._teacher_logits:
            self._teacher_logits[rows] = self.logits(self.loaded.model, rows)
        return self._teacher_logits[rows]

    def evaluate(self, model: Any, rows: str) -> dict[str, float]:
        """Metrics of a model on ``selection`` or ``validation`` rows."""
        return self.task.evaluate(self.logits(model, rows), label_array(self.rows[rows]))

    @property
    def on_selection(self) -> dict[str, float]:
        """The teacher's metrics on the selection rows."""
        return self.task.evaluate(self.teacher_logits("selection"), label_array(self.rows["selection"]))

    def teacher_sizes(self) -> Sizes:
        """The teacher's parameters, those of pieces that students lack included."""
        return self._whole_sizes or self.shape.sizes(self.full)

    def teacher_result(self) -> ModelResult:
        """The teacher's metrics on the validation rows, and its sizes."""
        metrics = self.task.evaluate(self.teacher_logits("validation"), label_array(self.rows["validation"]))
        return ModelResult(Path(self.settings.teacher), self.full, self.teacher_sizes(), metrics, self.on_selection)

    def contrast(self, student: Any) -> dict[str, Any] | None:
        """What teacher and student get wrong on the validation rows (see `minidisc.contrast`), if rows have labels."""
        if self.task.kind == CAUSAL_LM:
            return None
        teacher, own = self.teacher_logits("validation"), self.logits(student, "validation")
        labels, texts = label_array(self.rows["validation"]), self.rows.readable("validation")
        found = contrast(self.task, teacher, own, labels, texts)
        return found if self.settings.examples else {**found, "examples": []}

    def _pool(self, settings: CompressSettings) -> list[float]:
        """Sparsities of all targets' candidates."""
        return sorted({s for target in self.targets for s in candidate_sparsities(target, settings.grid)})

    def _trim_vocabulary(self) -> dict[str, Any]:
        """Take the pieces that no training row has out of teacher and rows; says what is left and what is missed."""
        tokenizer, model = self.loaded.tokenizer, self.loaded.model
        # Figures of the teacher are those of the whole one, and so is what it gets wrong.
        shape = Shape.of(model, self.architecture)
        self._whole_sizes = shape.sizes(shape.full())
        self.teacher_logits("validation")
        seen = {*self.rows.training_pieces().tolist()} | named_pieces(model)
        if reserved := self.architecture.reserved_positions:
            # The padding keeps its number, which positions count from.
            seen.update(range(reserved(model.config)))
        self._kept_pieces = kept = needed_pieces(tokenizer, seen)
        found = {"kept": len(kept), "of": len(tokenizer), **dropped(self.rows["validation"]["input_ids"], kept)}
        trim_model(model, kept)
        self.loaded = dataclasses.replace(self.loaded, tokenizer=trim_tokenizer(tokenizer, kept))
        self.rows.encode(self.task, self.loaded.tokenizer)
        self.listener.note(
            f"vocabulary: {len(kept)} of {len(tokenizer)} pieces are kept; of the validation rows' pieces "
            f"{100 * found['pieces']:.2f} % are others, in {found['rows']} of {len(self.rows['validation'])} rows."
        )
        return found

    def _lower_rank(self, rank: int) -> dict[str, float]:
        """Have students hold thinner word embeddings; says what that saves and loses."""
        model = self.loaded.model
        check_rank(model, rank)
        self._whole_sizes = self._whole_sizes or self.shape.sizes(self.full)
        size = model.base_model.get_input_embeddings().num_embeddings
        counts = np.bincount(self.rows.training_pieces(), minlength=size)
        found = factorise(model, rank, torch.from_numpy(counts))
        saved = int(found["saved"])
        self.shape = dataclasses.replace(
            self.shape,
            all_parameters=self.shape.all_parameters - saved,
            embedding_parameters=self.shape.embedding_parameters - saved,
        )
        self.listener.note(
            f"embeddings of rank {rank}: {saved / 1e6:.2f} M parameters less; before training "
            f"{100 * found['error']:.2g} % of the training text's squared embeddings are lost."
        )
        return found
