"""A transformers Trainer that can be killed at any moment and ends with the same weights all the same.

Everything random is drawn from (seed, epoch) or (seed, step) and nothing from a running generator; a checkpoint is
whole or absent; and every tracked network keeps its best metric together with the weights that gave it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from minidisc import ranks
from minidisc.architectures import STUDENT_PREFIX, architecture_for
from minidisc.arguments import ResumableArguments, is_evaluated
from minidisc.batching import LengthGroupedOrder
from minidisc.checkpointing import checkpointed
from minidisc.checkpoints import CheckpointFolder
from minidisc.devices import attention_kernels, moved
from minidisc.distribution import (
    Counts,
    average_gradients,
    load_weights,
    mean_counts,
    own_rows,
    partial_moments,
    prepare_engine,
    weights_to_save,
)
from minidisc.errors import UserError
from minidisc.files import full_disk_named
from minidisc.layers import layers_of, state_to_save, whole_state
from minidisc.losses import Share
from minidisc.measure import measured, peak_memory
from minidisc.memory import HeapGuard, release_memory
from minidisc.recording import MULTIPLE, StepRecorder
from minidisc.results import Cost
from minidisc.tasks import collator


@dataclass
class Best:
    """A tracked network's best evaluation: its metrics, and the step whose snapshot holds the weights."""

    step: int
    metrics: dict[str, float]


class ResumableTrainer(Trainer):
    """Base of minidisc's trainers; subclasses say how a step is trained and how the tracked networks are scored.

    Args:
        model: what is trained.
        args: see `ResumableArguments`; ``output_dir`` holds checkpoints and snapshots.
        train_rows: encoded rows (see `minidisc.tasks.encode`).
        tokenizer: pads batches.
        networks: names of the tracked networks.
        progress: called after every step and evaluation with (step, all steps, loss or None, metric by network or
            None).
    """

    def __init__(
        self,
        model: Any,
        args: ResumableArguments,
        train_rows: Any,
        tokenizer: Any,
        networks: Sequence[str],
        progress: Any = None,
    ) -> None:
        super().__init__(model=model, args=args, train_dataset=train_rows, data_collator=collator(tokenizer))
        if self.is_sharded:
            # transformers leaves that to the engine, which knows nothing of the model before its first step.
            model.to(args.device)
        self._lengths = train_rows["length"][:]
        self._family = architecture_for(model.config.model_type.removeprefix(STUDENT_PREFIX))
        prepare_engine(self.accelerator, model, layers_of(model, self._family))
        self.model_accepts_loss_kwargs = False
        self.networks = list(networks)
        self.best: list[Best | None] = [None] * len(self.networks)
        self.history: list[dict[str, Any]] = []
        self.cost = Cost()
        self.last_loss: torch.Tensor | None = None
        self._stale = 0
        self._heap = HeapGuard()
        self._arguments = args
        self._folder = CheckpointFolder(Path(str(args.output_dir)))
        self._recorder: StepRecorder | None = None
        if self._records():
            self._recorder = StepRecorder(model.parameters(), failed=_warn_of_slow_steps)
            self.data_collator = collator(tokenizer, MULTIPLE, max(self._lengths))
        self._progress = progress or (lambda *_: None)
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)
        self.add_callback(_Schedule(self))

    def score(self) -> list[dict[str, float]]:
        """Metrics of every tracked network now, each with the key ``metric``."""
        raise NotImplementedError

    def fit(self) -> None:
        """Train to the end, from the newest checkpoint in ``output_dir`` if there is one."""
        newest = self._folder.newest
        if newest:
            self._restore(newest)
            # A kill may have come between the newest one and this.
            ranks.by_zero(lambda: self._folder.drop_older(self._referenced()))
        if not self.finished:
            self.before_training()
            self._started = (time.perf_counter(), time.process_time())
            model: Any = self.model
            with (
                measured(self.cost),
                torch.enable_grad(),  # a notebook may have turned gradients off
                attention_kernels(),
                checkpointed(model, self._family, self._arguments.checkpointed),
            ):
                self._train_from(newest)
            self._forget_training()
            # What is written is what counts, also when it is read again.
            self._restore_cost(self._folder.figures(self._newest()))
        self.cost.steps = self.state.global_step
        self.cost.flops = self.state.total_flos

    @property
    def finished(self) -> bool:
        """Whether the newest checkpoint in ``output_dir`` is that of a training's end."""
        newest = self._folder.newest
        return newest is not None and self._folder.figures(newest)["finished"]

    def _records(self) -> bool:
        """Whether steps are recorded: those of one process on a GPU, of layers as they are."""
        arguments: Any = self.args
        alone = ranks.world_size() == 1 and not self.is_sharded
        # T5's classifier waits for the device to tell whether every row has an end token.
        as_is = not (arguments.checkpointed or self._family.pools_end_token)
        return arguments.recorded and arguments.device.type == "cuda" and alone and as_is

    def _forget_training(self) -> None:
        """Drop what only further steps would need: gradients, what the optimiser keeps, and what wraps the model."""
        cast(torch.nn.Module, self.model).zero_grad(set_to_none=True)
        self._hold_alone(self.model)
        self.optimizer = self.lr_scheduler = self._recorder = None
        self.callback_handler.optimizer = self.callback_handler.lr_scheduler = None
        self.accelerator.free_memory()
        release_memory()

    def _hold_alone(self, model: Any) -> None:
        """Make this the trainer's model, and forget any other one and what an engine has put around it.

        DistributedDataParallel and DeepSpeed would keep its weights when it drops them itself.
        """
        self.model = self.model_wrapped = self.callback_handler.model = model
        self.deepspeed = None

    @property
    def is_sharded(self) -> bool:
        """Whether FSDP or DeepSpeed trains the model, which then syncs gradients itself and may hold it in parts."""
        return self.is_fsdp_enabled or self.is_deepspeed_enabled

    @property
    def _engine(self) -> str | None:
        """What shards the model, whose checkpoints nothing else can take up; DeepSpeed's are of so many processes."""
        if self.is_deepspeed_enabled:
            return f"DeepSpeed on {ranks.world_size()} processes"
        return "FSDP" if self.is_fsdp_enabled else None

    def before_training(self) -> None:
        """What has to be there before the first step, at a cost of its own; nothing by default."""

    def best_state(self, network: int) -> dict[str, torch.Tensor]:
        """The weights with which a tracked network reached its best metric."""
        best = self.best[network]
        assert best is not None
        return whole_state(cast(torch.nn.Module, self.model), self._folder.snapshot(best.step))

    def keep_snapshots_only(self) -> None:
        """Once finished, drop what only further training would need; the best weights and the figures stay."""
        ranks.by_zero(lambda: self._folder.keep_figures(self._newest()))

    def _train_from(self, checkpoint: Path | None) -> None:
        if checkpoint is None:
            self.evaluate()
            ranks.by_zero(self._write_first_snapshot)
        self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

    def _write_first_snapshot(self) -> None:
        for step in self._referenced():
            self._folder.write_snapshot(step, state_to_save(cast(torch.nn.Module, self.model)))

    # What transformers' Trainer calls.

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Score the tracked networks, note improvements, and stop when there was none for too long."""
        step = self.state.global_step
        # Another processor may round otherwise, and all have to stop at the same step.
        scores = self.score()
        scores = ranks.by_zero(lambda: scores)
        improved = False
        for i, metrics in enumerate(scores):
            best = self.best[i]
            if best is None or metrics["metric"] > best.metrics["metric"]:
                self.best[i] = Best(step, metrics)
                improved = True
            elif best.step == 0 and metrics["metric"] == best.metrics["metric"]:
                # Else a classifier that gives everything the most frequent answer would be handed over untrained.
                self.best[i] = Best(step, metrics)
        self._stale = 0 if improved else self._stale + 1
        if self._stale >= self._arguments.patience:
            self.control.should_training_stop = True
        self.history.append({"step": step, "metrics": dict(zip(self.networks, scores, strict=True))})
        metrics = {name: values["metric"] for name, values in zip(self.networks, scores, strict=True)}
        self._progress(step, self.state.max_steps, None, metrics)
        self.log(self._to_log(scores))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Seed the step's dropout, then train it."""
        # state.epoch only moves at the end of an update, so micro-batches are told apart by a counter.
        if self.state.global_step != self._micro_of:
            self._micro_of, self._micro = self.state.global_step, 0
        self._micro += 1
        own = [ranks.rank()] if ranks.rank() else []
        seed = np.random.SeedSequence((self.args.seed, self.state.global_step, self._micro, *own)).generate_state(1)
        torch.manual_seed(int(seed[0]))
        self._heap.step(inputs["attention_mask"].numel())
        loss = self.train_batch(model, inputs)
        if self.accelerator.sync_gradients and ranks.world_size() > 1 and not self.is_sharded:
            average_gradients(cast(torch.nn.Module, self.model).parameters())
        # A copy: a recorded step writes its loss to the same place every time.
        before = self.last_loss if self._micro > 1 else None
        self.last_loss = loss.clone() if before is None else before + loss
        return loss

    def run_passes(self, what: Hashable, batch: Any, passes: Callable[[Any], torch.Tensor]) -> torch.Tensor:
        """``passes(batch)``, recorded and replayed where that can be; see `minidisc.recording.StepRecorder.run`."""
        return passes(batch) if self._recorder is None else self._recorder.run(what, batch, passes)

    def _to_log(self, scores: Sequence[dict[str, float]]) -> dict[str, float]:
        """What experiment trackers are told of an evaluation, with the prefix by which they know one."""
        logs = {
            f"eval_{metric}/{network}": value
            for network, metrics in zip(self.networks, scores, strict=True)
            for metric, value in metrics.items()
            if metric != "metric"
        }
        return logs if self.last_loss is None else {"loss": self.last_loss.item(), **logs}

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """A step's batches; what each of them counts for depends on all."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._mean_counts = mean_counts(batches) if len(batches) > 1 else None
        return batches, items

    def own_rows(self, inputs: dict[str, Any]) -> tuple[dict[str, Any], Share]:
        """The rows of a batch that this process trains, and what they count for in the step."""
        inputs, share = own_rows(inputs, self._mean_counts)
        if self._recorder is not None:
            # A replayed step reads anew what is a tensor, and nothing else.
            share = Share(*moved(torch.tensor(astuple(share)), self.args.device))
        return inputs, share

    _micro_of, _micro = -1, 0
    _mean_counts: Counts | None = None

    def train_batch(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """Backward pass of one (micro-)batch; returns the loss, detached, divided by the accumulation steps."""
        return super().training_step(model, inputs)

    def get_train_dataloader(self) -> DataLoader:
        """Whole batches for every process, which trains its own rows of each (see `minidisc.distribution.own_rows`).

        accelerate would hand out whole batches in turn, and repeat rows to make the last ones even.
        """
        loader = DataLoader(
            cast(Dataset, self.train_dataset),
            batch_size=self.args.per_device_train_batch_size,
            sampler=self._get_train_sampler(),
            collate_fn=self.data_collator,
        )
        return prepare_data_loader(loader, num_processes=1, process_index=0)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
        return LengthGroupedOrder(
            self._lengths,
            self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps,
            self.args.seed,
        )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        ranks.by_zero(self._folder.clear_staging)
        with full_disk_named(self._folder.path):
            super()._save_checkpoint(model, trial)
            cpu_seconds = ranks.summed(time.process_time() - self._started[1])
            ranks.by_zero(lambda: self._finish_checkpoint(cpu_seconds))

    def _finish_checkpoint(self, cpu_seconds: float) -> None:
        step = self.state.global_step
        figures = {
            "engine": self._engine,
            "best": [best and asdict(best) for best in self.best],
            "stale": self._stale,
            "finished": step >= self.state.max_steps or self._stale >= self._arguments.patience,
            "history": self.history,
            "seconds": self.cost.seconds + time.perf_counter() - self._started[0],
            "cpu_seconds": self.cost.cpu_seconds + cpu_seconds,
            "peak_memory": max(self.cost.peak_memory, peak_memory()),
        }
        self._folder.finish(step, figures, self._referenced())

    def _get_output_dir(self, trial: Any) -> str:
        # transformers writes a checkpoint in place, file by file; it is renamed to its real place when whole.
        return str(self._folder.staging)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the weights, whole also where they are sharded; all processes have to call it."""
        assert output_dir is not None
        weights = weights_to_save(cast(torch.nn.Module, self.model), self.accelerator)
        if self.args.should_save:
            self._folder.write_weights(Path(output_dir), weights)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        # transformers would miss, and say so, the second names of weights that have two.
        model = self.model if model is None else model
        load_weights(model, self._folder.weights(Path(resume_from_checkpoint)))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with partial_moments() if self.is_fsdp_enabled else nullcontext():
            super()._load_optimizer_and_scheduler(checkpoint)

    def _referenced(self) -> set[int]:
        return {best.step for best in self.best if best is not None}

    def _newest(self) -> Path:
        newest = self._folder.newest
        assert newest is not None
        return newest

    def _restore(self, checkpoint: Path) -> None:
        saved = self._folder.figures(checkpoint)
        begun_under = saved.get("engine", self._engine)
        if begun_under != self._engine and not saved["finished"]:
            # Elsewhere its moments and learning rate would be lost in silence, or a file be missing.
            raise UserError(
                f"{self._folder.path} was trained under {begun_under or 'no FSDP or DeepSpeed'} so far, and cannot go "
                f"on under {self._engine or 'none'}; start it as before, or give another --output-dir."
            )
        self._folder.check(checkpoint)
        self.best = [best and Best(**best) for best in saved["best"]]
        self._stale, self.history = saved["stale"], saved["history"]
        self._restore_cost(saved)
        if self._folder.has_weights(checkpoint):
            self._load_from_checkpoint(str(checkpoint))
        state = self._folder.state(checkpoint)
        self.state.global_step, self.state.total_flos = state["global_step"], state["total_flos"]

    def _restore_cost(self, saved: dict[str, Any]) -> None:
        self.cost.seconds, self.cost.cpu_seconds = saved["seconds"], saved["cpu_seconds"]
        self.cost.peak_memory = saved["peak_memory"]


class _Schedule(TrainerCallback):
    """Evaluates and checkpoints at regular steps and at the last one, and reports progress."""

    def __init__(self, trainer: ResumableTrainer) -> None:
        self._trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        batches = math.ceil(len(self._trainer._lengths) / args.per_device_train_batch_size)
        updates = math.ceil(batches / args.gradient_accumulation_steps)
        every = max(1, math.ceil(updates / args.evaluations_per_epoch))
        if is_evaluated(state.global_step, state.max_steps, every):
            control.should_evaluate = control.should_save = True
        self._trainer._progress(state.global_step, state.max_steps, self._trainer.last_loss, None)


def _warn_of_slow_steps(reason: str) -> None:
    logging.getLogger("minidisc").warning(
        "steps run one kernel after another, since they cannot be recorded: %s", reason
    )
