"""The sandwich: one trainer for a teacher and all the sub-networks that learn from it.

METHOD: at each step the batch goes once through the frozen teacher and through the sub-networks; the loss of each
against the teacher is averaged; one optimiser step (arXiv 2205.14570, section 3). Of many candidates only the
largest, the smallest and a few random ones are trained in a step (the sandwich rule, arXiv 1903.05134).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch.distributed.fsdp import FSDPModule

from minidisc import ranks
from minidisc.architectures import STUDENT_PREFIX, architecture_for
from minidisc.arguments import ResumableArguments
from minidisc.config import sandwich_rule
from minidisc.devices import moved
from minidisc.errors import UserError
from minidisc.extraction import extract
from minidisc.layers import embedding_modules, set_dropout
from minidisc.losses import LOSSES, WITH_RELATIONS, WITH_STATES, WITHOUT_TEACHER, Outputs, Truth, distilled_layers
from minidisc.measure import Shape
from minidisc.memory import is_freed
from minidisc.nested import NestedNetwork
from minidisc.outputs import OutputReader
from minidisc.prediction import model_inputs, predict_subnetworks
from minidisc.resumable import Best, ResumableTrainer
from minidisc.selection import tradeoff
from minidisc.subnetworks import SubnetworkSpec
from minidisc.tasks import Task, label_array
from minidisc.teaching import OutputStore, StoredOutputs, keep_largest


@dataclass
class SandwichArguments(ResumableArguments):
    """Arguments of the sandwich beside those of transformers' Trainer."""

    candidates_per_step: str = field(
        default="largest+smallest+1", metadata={"help": "see minidisc.config.sandwich_rule"}
    )
    dropout: float = field(default=0.0, metadata={"help": "dropout of the sub-networks in training"})
    train_embeddings: bool = field(default=True, metadata={"help": "train the embeddings too, or keep the model's"})
    loss: str = field(default="hidden+logits", metadata={"help": "a key of minidisc.losses.LOSSES"})
    teacher_top_k: int | None = field(
        default=None, metadata={"help": "the teacher's logits of a token that count; all if not given"}
    )
    tradeoff_lambda: float | None = field(
        default=None, metadata={"help": "weight of sparsity in the tradeoffs that experiment trackers are told"}
    )


class SandwichTrainer(ResumableTrainer):
    """Trains sub-networks of one weight-shared network against a frozen teacher.

    With a single candidate this is plain distillation.

    Args:
        model: a network ordered by importance that contains every candidate (see `minidisc.extraction.extract`);
            its weights are trained, its class becomes nested.
        args: see `SandwichArguments`; ``output_dir`` holds checkpoints and snapshots.
        teacher: frozen; same tokenizer and hidden size as ``model``, and as many layers or more. Several are given
            as a list: the loss is then the mean of the losses against each.
        candidates: the sub-networks, in any order.
        task: scores the candidates.
        outputs: the model's output for each of the task's classes (see `minidisc.tasks.align_labels`); None for all.
        train_rows: encoded rows; labels are used by the losses of `minidisc.losses.WITH_LABELS` alone.
        selection_rows: encoded rows with labels, on which every candidate is scored.
        tokenizer: pads batches.
        progress: see `ResumableTrainer`.
        always: candidates that are trained at every step, as the largest and the smallest are.
        stores: where the outputs of each teacher are kept, so that it runs once on every row instead of at every step.
        stored: called when all of them are there, so that no teacher runs any more.

    Raises:
        UserError: a candidate that the model does not contain.
    """

    def __init__(
        self,
        model: Any,
        args: SandwichArguments,
        *,
        teacher: Any,
        candidates: Sequence[SubnetworkSpec],
        task: Task,
        outputs: Sequence[int] | None,
        train_rows: Any,
        selection_rows: Any,
        tokenizer: Any,
        progress: Any = None,
        always: Sequence[SubnetworkSpec] = (),
        stores: Sequence[OutputStore] = (),
        stored: Callable[[], None] = lambda: None,
    ) -> None:
        if stores:
            train_rows = train_rows.add_column("row", range(len(train_rows)))
        super().__init__(model, args, train_rows, tokenizer, [c.name for c in candidates], progress)
        family = model.config.model_type.removeprefix(STUDENT_PREFIX)
        architecture = architecture_for(family)
        self.candidates = list(candidates)
        self.task = task
        self.network = NestedNetwork(model, architecture)
        teachers = [] if args.loss in WITHOUT_TEACHER else teacher if isinstance(teacher, list) else [teacher]
        self.teachers = [network if is_freed(network) else network.to(args.device).eval() for network in teachers]
        self._outputs = outputs
        self._selection_rows = selection_rows
        self._logits: list[np.ndarray] = []
        self._best_logits: dict[SubnetworkSpec, np.ndarray] = {}
        self._by_size = sorted(self.candidates, key=lambda c: (sum(c.neurons), sum(c.heads)))
        largest, self._random = sandwich_rule(args.candidates_per_step)
        self._always = {self._by_size[0], self._by_size[-1] if largest else self._by_size[0], *always}
        self._shape = Shape.of(model, architecture)
        self._architecture, self._width = architecture, _spec_of(model, self._shape)
        for spec in self.candidates:
            if not self._width.contains(spec):
                raise UserError(f"candidate {spec.name} is wider than the model in some layer; extract a wider model.")
        self._loss = LOSSES[args.loss]
        states = distilled_layers(self._shape.depth, self._shape.decoder_depth) if args.loss in WITH_STATES else []
        relations = args.loss in WITH_RELATIONS
        self._read = OutputReader(model, architecture, states, relations)
        self._read_teachers = []
        self._teacher_widths: list[tuple[Shape, SubnetworkSpec]] = []
        self._stores, self._all_stored = list(stores), stored
        self._stored: list[StoredOutputs] = []
        for network in self.teachers:
            shape = Shape.of(network, architecture)
            # A student with fewer layers is compared after as large a part of the teacher's.
            matched = [round(i * shape.depth / self._shape.depth) for i in states]
            self._read_teachers.append(OutputReader(network, architecture, matched, relations))
            self._teacher_widths.append((shape, _spec_of(network, shape)))
        for module in embedding_modules(model, architecture):
            module.requires_grad_(args.train_embeddings)
        set_dropout(model, args.dropout)

    def fit(self) -> None:
        """Train to the end, from the newest checkpoint in ``output_dir`` if there is one."""
        try:
            super().fit()
            if isinstance(self.model, FSDPModule) or self.is_deepspeed_enabled:
                # What is done with it from here on needs it whole, and whatever is wanted of it is in its files.
                self._hold_alone(extract(self.model, self._width, self.best_state(0)).to(self.args.device))
                self.network = NestedNetwork(self.model, self._architecture)
        finally:
            for reader in (self._read, *self._read_teachers):
                reader.close()
            for stored in self._stored:
                stored.close()

    def before_training(self) -> None:
        """Compute the teachers' outputs, where they are to be kept."""
        rows = self.train_dataset
        for store, read, (shape, spec) in zip(
            self._stores, self._read_teachers, self._teacher_widths, strict=bool(self._stores)
        ):
            fill = partial(
                store.fill,
                read,
                rows,
                self.data_collator,
                self.args.per_device_eval_batch_size,
                self.args.device,
                partial(shape.forward_flops, spec),
            )
            with self._teachers_precision():
                ranks.by_zero(fill)
            self._stored.append(store.read(self._lengths))
        if self._stores:
            self._all_stored()

    def train_batch(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """One batch through the teachers and the step's sub-networks, each sent backward at once."""
        inputs, share = self.own_rows(inputs)
        labels = moved(inputs["labels"], self.args.device) if "labels" in inputs else None
        rows, mask = inputs["row"].tolist() if self._stored else [], inputs["attention_mask"]
        inputs = model_inputs(inputs, self.args.device)
        truth = Truth(inputs["attention_mask"], labels, self._outputs, share, self._family.pools_late)
        chosen = self.step_candidates(self.state.global_step)
        largest = chosen[-1]
        engine: Any = None
        options: dict[str, bool] = {}
        if self.is_deepspeed_enabled:
            # It adds up the gradients of passes that it knows of, and the loss is divided here already.
            engine, options = model, {"scale_wrt_gas": False}
            # What a step's first pass does not reach keeps ZeRO-3's gradient of the step before.
            chosen = [largest, *chosen[:-1]]
        model.train()
        with self._teachers_precision(), torch.no_grad():
            targets = [stored(rows, mask, self.args.device) for stored in self._stored]
            targets = targets or [self._largest_of(read(inputs)) for read in self._read_teachers]

        def passes(batch: tuple[dict[str, Any], list[Outputs], Truth]) -> torch.Tensor:
            inputs, targets, truth = batch
            total = torch.zeros((), device=self.args.device)
            # FSDP sends gradients off in the last backward pass, so that has to be the largest's.
            sharing = nullcontext() if self.is_sharded else self.network.one_step(chosen)
            with sharing:
                for spec in chosen:
                    if spec is largest and len(chosen) > 1:
                        # The largest's tensors would come on top of the holes that the others have just left.
                        self._heap.part()
                    self.network.activate(spec)
                    with self._synced(model, spec is chosen[-1]):
                        output = self._read(inputs, engine)
                        losses = [self._loss(output, target, truth) for target in targets or [output]]
                        loss = torch.stack(losses).mean() / (len(chosen) * self.current_gradient_accumulation_steps)
                        self.accelerator.backward(loss, **options)
                    total += loss.detach()
            self.network.activate(None)
            return total

        what = tuple(spec.name for spec in chosen), self.current_gradient_accumulation_steps
        return self.run_passes(what, (inputs, targets, truth), passes)

    def _teachers_precision(self) -> torch.autocast:
        """Autocast for the teachers in a bf16 run; accelerate puts it around the model that is trained alone."""
        return torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.args.bf16)

    @contextmanager
    def _synced(self, model: Any, last: bool) -> Iterator[None]:
        """A pass at whose end an engine sends gradients off, if the step ends with it; else it only adds them up."""
        state = self.accelerator.gradient_state
        if last or not state.sync_gradients:
            yield
            return
        # Both: FSDP asks the model, DeepSpeed the state. The model's must not be entered twice.
        state._set_sync_gradients(False)
        try:
            with self.accelerator.no_sync(model):
                yield
        finally:
            # Also if the pass cannot be recorded, and the step then runs as it is.
            state._set_sync_gradients(True)

    def _largest_of(self, outputs: Outputs) -> Outputs:
        count = cast(SandwichArguments, self.args).teacher_top_k
        return replace(outputs, largest=keep_largest(outputs.logits, count)) if count else outputs

    def step_candidates(self, step: int) -> list[SubnetworkSpec]:
        """The sub-networks that are trained in a step, smallest first; drawn from (seed, step) alone."""
        others = [spec for spec in self._by_size if spec not in self._always]
        if self._random is not None and self._random < len(others):
            random = np.random.default_rng((self.args.seed, step))
            others = [others[i] for i in random.choice(len(others), self._random, replace=False)]
        return [spec for spec in self._by_size if spec in self._always or spec in others]

    def score(self) -> list[dict[str, float]]:
        """Metrics of every candidate on the selection rows."""
        labels, self._logits = self.selection_labels(), self._predict()
        return [self.task.evaluate(logits, labels) for logits in self._logits]

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Score the candidates, and keep what those predict that were never better; see `ResumableTrainer`."""
        metrics = super().evaluate(*args, **kwargs)
        for spec, logits in zip(self.candidates, self._logits, strict=True):
            if self._best_of(spec).step == self.state.global_step:
                self._best_logits[spec] = logits
        self._logits = []
        return metrics

    def _to_log(self, scores: Sequence[dict[str, float]]) -> dict[str, float]:
        weight = cast(SandwichArguments, self.args).tradeoff_lambda
        tradeoffs = {
            f"eval_t_lambda/{spec.name}": tradeoff(metrics["metric"], spec.sparsity, weight)
            for spec, metrics in zip(self.candidates, scores, strict=True)
            if weight is not None
        }
        return {**super()._to_log(scores), **tradeoffs}

    def selection_labels(self) -> np.ndarray:
        """Labels of the selection rows, as `minidisc.tasks.Task.evaluate` takes them."""
        return label_array(self._selection_rows)

    def best_logits(self, candidates: Sequence[SubnetworkSpec]) -> list[np.ndarray]:
        """What each of these candidates predicts for the selection rows with the weights of its best metric.

        Kept since they were scored, or, after a resume, predicted anew from the snapshots; the weights are then again
        what they were.

        Returns:
            For each candidate its logits, as `minidisc.tasks.Task.evaluate` takes them.
        """
        # Not copied: the others are put in their place.
        live = self.network.model.state_dict(keep_vars=True)
        steps = {spec: self._best_of(spec).step for spec in candidates}
        kept = dict(self._best_logits)
        for step in sorted({steps[spec] for spec in candidates if spec not in kept}):
            members = [spec for spec in candidates if steps[spec] == step]
            best = self.best_state(self.networks.index(members[0].name))
            best = {name: value.to(self.args.device) for name, value in best.items()}
            self.network.model.load_state_dict(best, assign=True)
            # All of them, as when they were scored: what they share rounds otherwise for fewer.
            predicted = dict(zip(self.candidates, self._predict(), strict=True))
            kept.update({spec: predicted[spec] for spec in members})
            # At once: only those that it was made with know which weights have two names.
            self.network.model.load_state_dict(live, assign=True)
        return [kept[spec] for spec in candidates]

    def _best_of(self, spec: SubnetworkSpec) -> Best:
        best = self.best[self.networks.index(spec.name)]
        assert best is not None
        return best

    def _predict(self) -> list[np.ndarray]:
        return predict_subnetworks(
            self.network,
            self.candidates,
            self._selection_rows,
            self.data_collator,
            self.args.per_device_eval_batch_size,
            self._outputs,
        )

    def floating_point_ops(self, inputs: dict[str, Any]) -> float:  # type: ignore[override]
        """This process's FLOPs of a step: each sub-network forward and (twice that) backward, and running teachers.

        Rows count as long as the batch's longest, not as a recorded step pads them: so machines and estimates agree.
        What sub-networks share of the first layer (`minidisc.sharing`) is counted for each.
        """
        rows, length = len(inputs["attention_mask"]), int(inputs["attention_mask"].sum(1).max())
        trained = self.step_candidates(self.state.global_step)
        running = [] if self._stored else self._teacher_widths
        targets = sum(shape.forward_flops(spec, rows, length) for shape, spec in running)
        forward = sum(self._shape.forward_flops(spec, rows, length) for spec in trained)
        # transformers adds up what the processes report.
        return int(targets + 3 * forward) / ranks.world_size()


def _spec_of(model: Any, shape: Shape) -> SubnetworkSpec:
    full = shape.full()
    heads = getattr(model.config, "heads_per_layer", None) or full.heads
    neurons = getattr(model.config, "neurons_per_layer", None) or full.neurons
    return SubnetworkSpec(0.0, tuple(heads), tuple(neurons))
