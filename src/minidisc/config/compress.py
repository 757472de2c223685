"""Settings of `minidisc compress`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from minidisc.config.budget import BUDGETS, DEFAULT_SPARSITY, TARGETS, Budget
from minidisc.config.data import RowSettings
from minidisc.config.options import choice, flag, option, require
from minidisc.config.training import TrainingSettings
from minidisc.errors import UserError
from minidisc.quantities import quantity

Schedule = Literal["minidisc", "direct", "finetune", "maxidisc", "chain"]
Student = Literal["pruned", "layers"]
Loss = Literal["hidden+logits", "logits", "pkd", "minilm", "labels"]
SecondStage = Literal["student", "sandwich"]
SecondTeacher = Literal["assistant", "teacher", "both"]
DecayOver = Literal["stage", "run"]
ImportanceOn = Literal["labels", "teacher"]
Widths = Literal["per-layer", "uniform"]
SecondImportance = Literal["teacher", "assistant"]
NoGap = Literal["train", "stop", "assume"]
SelectOn = Literal["train", "validation"]
SaveDtype = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class CompressSettings(RowSettings, TrainingSettings):
    """`minidisc compress`: the main job."""

    # More and faster than for a teacher: what is left after pruning has more to learn.
    epochs: float = option(5.0, "passes over the training rows, of each stage")
    learning_rate: float = option(1e-4, "peak learning rate")
    teacher: str = option(None, "folder or Hub id of the fine-tuned model")
    output_dir: str = option(None, "run folder")
    train_text: str | None = option(
        None,
        "generate:N has the teacher, a language model, write N documents of up to --max-length tokens itself, in "
        "place of --train-file; without --validation-file it writes that too (a tenth, 64 documents at least)",
    )
    target_sparsity: float = option(
        None, "fraction of attention heads and FFN neurons to remove, if none of the next four is given [0.9]"
    )
    target_params: str = option(None, "at most so many parameters, all of them, embeddings included, such as 2M")
    target_size: str = option(
        None, "at most so much disk for the saved weights (in --save-dtype), such as 20MB or 20MiB"
    )
    target_latency: str = option(
        None,
        "at most so much processor time for a pass of --latency-batch-size rows of --latency-length tokens through "
        "PyTorch on one thread of this machine's CPU, such as 3ms",
    )
    max_drop: str = option(
        None,
        "the smallest candidate whose metric on the selection rows is at most so much below the teacher's, such as 1% "
        "(0.01 of the metric, not of the teacher's), found once all candidates, up to 95 % sparsity, are trained",
    )
    latency_batch_size: int = option(1, "rows that --target-latency is for")
    latency_length: int | None = option(
        None, "tokens of each row that --target-latency is for (default: the training rows' mean)"
    )
    tradeoff_lambda: float = option(0.2, "weight of sparsity against metric when the assistant is chosen")
    grid: tuple[float, ...] | None = option(
        None, "sparsities of the candidates, comma-separated (default: 0.5,0.6,… up to the target)"
    )
    widths: Widths = option(
        "per-layer",
        "how sub-networks are cut: the most important heads and neurons of the whole model, or as many in every "
        "layer; uniform decoders such as Llama are saved as plain checkpoints that need no code of minidisc",
    )
    neuron_multiple: int = option(8, "FFN neurons of a layer are rounded to this multiple")
    trim_vocabulary: bool = option(
        False,
        "keep the embeddings of the tokenizer's pieces that the training text has, of special tokens and of single "
        "characters alone; a word of other pieces falls apart into smaller ones",
    )
    embedding_rank: int | None = option(
        None,
        "word embeddings of students as the product of two tables of this rank, fitted to how often each piece occurs "
        "in the training text (not where a language model chooses the next token by them, too)",
    )
    stages: int = option(2, "2: one teacher assistant; 3: two assistants; 1: the student straight from the sandwich")
    schedule: Schedule = option(
        "minidisc",
        "minidisc; direct (no assistant); finetune (no teacher either); maxidisc (every candidate as assistant, the "
        "best student wins); chain (the assistants of --assistants)",
    )
    assistants: tuple[float, ...] | None = option(
        None,
        "sparsities of fixed assistants, comma-separated: those of --schedule chain, or, for minidisc, candidates to "
        "take whatever their tradeoff",
    )
    student: Student = option("pruned", "pruned, or layers (every k-th layer is kept; for direct and finetune)")
    loss: Loss = option(
        "hidden+logits",
        "what students learn by: hidden+logits, logits, pkd (states, logits and labels), minilm (attention relations "
        "and logits), labels (no teacher)",
    )
    second_stage: SecondStage = option("student", "last stage trains the student alone, or a sandwich again")
    second_learning_rate: float | None = option(
        None,
        "peak learning rate of minidisc's last stage, which trains what has learnt already; else --learning-rate",
    )
    decay_over: DecayOver = option(
        "stage",
        "stage: the learning rate falls to the end of every stage, and starts anew; run: it falls over all of "
        "minidisc's stages, each of which warms up to where the one before left it (not with --no-gap stop, which "
        "may end the run after its first stage)",
    )
    second_teacher: SecondTeacher = option(
        "assistant", "who teaches after the first stage: the assistant, the teacher, or both at once"
    )
    importance_on: ImportanceOn = option(
        "labels", "what importance is computed on: labels, or the teacher's own predictions, which needs no labels"
    )
    second_importance: SecondImportance = option(
        "teacher",
        "what the student is cut by after an assistant: the teacher's importance, or the assistant's, computed anew",
    )
    no_gap: NoGap = option(
        # Stopping leaves the student with half the steps: see results/evidence.md.
        "train",
        "when the student's own size has the best tradeoff: train the student on against the teacher, or stop after "
        "the first stage, as in the paper; assume: do as train does whatever the tradeoffs are, for comparison",
    )
    teacher_cache: float = option(
        4.0,
        "GiB of disk for the outputs of teachers, which then run once on every row instead of at every step; teachers "
        "run at every step where that does not fit, or a stage is no longer than an epoch",
    )
    teacher_top_k: int | None = option(
        None,
        "keep of the teacher's logits for a token only this many, the others count as one word: a language model's "
        "outputs then fit --teacher-cache (causal-lm alone; by default all are used, and it runs at every step)",
    )
    train_embeddings: bool = option(True, "train the embeddings too, or keep the teacher's")
    candidates_per_step: str = option(
        "largest+smallest+1",
        "sub-networks trained in a step: all, or largest+smallest+K or smallest+K with K random ones of the others",
    )
    sandwich_share: float | None = option(
        None,
        "part of all stages' steps in which assistants are found, the others being the student's (default: every "
        "stage has as many)",
    )
    select_on: SelectOn = option("train", "rows that choose the assistant: a split of train, or validation")
    selection_fraction: float | None = option(
        None,
        "part of the labelled training rows kept for selection, at most 2,000 (default: a tenth, or 500 rows "
        "where a tenth is fewer, but never more than a quarter)",
    )
    calibration_rows: int = option(1024, "labelled training rows that importance is computed on")
    dropout: float = option(0.0, "dropout of the sub-networks while they are trained")
    trust_remote_code: bool = option(False, "run code that comes with the teacher; only for models you trust")
    save_dtype: SaveDtype = option(
        "fp32",
        "fp32, bf16 or fp16: precision of the weights that models are saved with; they are trained in fp32, and the "
        "metrics on the validation rows are of the weights as they are saved",
    )
    keep_sizes: bool = option(
        True, "keep the weights of every size that was trained in RUN/sizes, for 'minidisc extract'"
    )
    examples: bool = option(
        True, "keep a few validation rows' texts, on which teacher and student differ, in results and report"
    )
    report_to: tuple[str, ...] | None = option(
        None,
        "experiment trackers that are told candidates' metrics and tradeoffs as they are trained, comma-separated: "
        "tensorboard (into RUN/tensorboard), wandb, mlflow and others that transformers knows",
    )
    keep_checkpoints: bool = option(False, "keep RUN/checkpoints after the run is complete")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.teacher), "--teacher is missing; give a folder or a Hub id of a fine-tuned model.")
        require(bool(self.output_dir), "--output-dir is missing; give a folder for the run.")
        given = [name for name in TARGETS if getattr(self, name) is not None]
        # It may be what is put in below, which dataclasses.replace does not tell from one that was given.
        default = (
            f" (that of settings without one is {DEFAULT_SPARSITY:g}; from Python, target_sparsity=None takes it out)"
        )
        hint = default if self.target_sparsity == DEFAULT_SPARSITY else ""
        require(len(given) <= 1, f"{' and '.join(map(flag, given))} are given; give one target{hint}.")
        if not given:
            object.__setattr__(self, "target_sparsity", DEFAULT_SPARSITY)
        budget = self.budget()
        require(
            budget is None or (self.student == "pruned" and self.second_importance == "teacher"),
            f"{budget and budget.flag} goes with --student pruned and --second-importance teacher: other "
            "students' sizes are not known before.",
        )
        require(
            self.max_drop is None or (self.schedule == "minidisc" and not self.assistants and self.stages <= 2),
            "--max-drop goes with --schedule minidisc and up to two stages, and not with --assistants.",
        )
        require(
            budget is None or budget.name != "max_drop" or budget.limit < 1 or "%" in budget.text,
            f"--max-drop is {self.max_drop!r}, all of the metric or more; give 1% or 0.01 for a hundredth of it.",
        )
        for name in ("latency_batch_size", "latency_length"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{flag(name)} is {value}; it must be at least 1.")
        require(
            (self.latency_length or 1) <= self.max_length,
            f"--latency-length is {self.latency_length}, but rows are cut to --max-length {self.max_length} tokens.",
        )
        if self.target_sparsity is not None:  # a budget's is known once it has been solved for
            self._check_target()
        require(0 <= self.tradeoff_lambda <= 1, f"--tradeoff-lambda is {self.tradeoff_lambda:g}; allowed is [0, 1].")
        for sparsity in self.grid or ():
            require(0 < sparsity < 1, f"--grid holds {sparsity:g}; every sparsity must lie between 0 and 1.")
        thin = self.embedding_rank
        require(thin is None or thin >= 1, f"--embedding-rank is {thin}; it must be at least 1.")
        require(self.neuron_multiple >= 1, f"--neuron-multiple is {self.neuron_multiple}; it must be at least 1.")
        require(self.stages >= 1, f"--stages is {self.stages}; it must be at least 1 (2 is the method's default).")
        choice("schedule", self.schedule, get_args(Schedule))
        choice("student", self.student, get_args(Student))
        choice("loss", self.loss, get_args(Loss))
        require(
            self.student == "pruned" or self.schedule in ("direct", "finetune"),
            f"--student layers goes with --schedule direct or finetune, not {self.schedule}.",
        )
        require(
            self.schedule != "chain" or bool(self.assistants),
            "--schedule chain needs --assistants, such as --assistants 0.6,0.8.",
        )
        require(
            self.schedule in ("chain", "minidisc") or not self.assistants,
            f"--assistants goes with --schedule chain or minidisc, not {self.schedule}.",
        )
        require(
            self.schedule != "minidisc" or not self.assistants or len(self.assistants) == self.stages - 1,
            f"--assistants names {len(self.assistants or ())}, but --stages {self.stages} of minidisc has "
            f"{self.stages - 1}; give as many.",
        )
        choice("second_stage", self.second_stage, get_args(SecondStage))
        if self.train_text is not None:
            require(
                documents_to_write(self.train_text) >= 64,
                f"--train-text is {self.train_text!r}; allowed is generate:N, N from 64 on.",
            )
            require(not self.train_file, "--train-text and --train-file are both given; give one.")
        choice("widths", self.widths, get_args(Widths))
        top = self.teacher_top_k
        require(top is None or top >= 1, f"--teacher-top-k is {top}; it must be at least 1.")
        choice("importance_on", self.importance_on, get_args(ImportanceOn))
        choice("second_importance", self.second_importance, get_args(SecondImportance))
        require(
            self.second_importance == "teacher" or self.second_stage == "student",
            "--second-importance assistant goes with --second-stage student: a sandwich holds prefixes of one order.",
        )
        choice("no_gap", self.no_gap, get_args(NoGap))
        require(
            self.no_gap != "assume" or not self.assistants,
            "--no-gap assume puts no assistant between, so it does not go with --assistants; leave one of them out.",
        )
        choice("second_teacher", self.second_teacher, get_args(SecondTeacher))
        choice("decay_over", self.decay_over, get_args(DecayOver))
        require(self.teacher_cache >= 0, f"--teacher-cache is {self.teacher_cache:g}; it must not be negative.")
        choice("select_on", self.select_on, get_args(SelectOn))
        choice("save_dtype", self.save_dtype, get_args(SaveDtype))
        fraction = self.selection_fraction
        require(
            fraction is None or 0 < fraction < 1,
            f"--selection-fraction is {fraction or 0:g}; allowed is between 0 and 1.",
        )
        require(self.calibration_rows >= 1, f"--calibration-rows is {self.calibration_rows}; it must be at least 1.")
        require(0 <= self.dropout < 1, f"--dropout is {self.dropout:g}; allowed is [0, 1).")
        sandwich_rule(self.candidates_per_step)
        rate, final = self.second_learning_rate, self.final_learning_rate
        require(
            rate is None or rate > final,
            f"--second-learning-rate is {rate or 0:g}; it must be greater than --final-learning-rate ({final:g}).",
        )
        require(
            rate is None or self.decay_over == "stage",
            "--second-learning-rate goes with --decay-over stage; with run, the last stage's rate follows from the "
            "one before.",
        )
        share = self.sandwich_share
        require(share is None or 0 < share < 1, f"--sandwich-share is {share or 0:g}; allowed is between 0 and 1.")

    def of_stage(self, rows: int, number: int | None = None, left_out: int = 0) -> CompressSettings:
        """The settings of one of minidisc's stages on so many rows: its own steps, and its own learning rates.

        Args:
            rows: training rows.
            number: which stage it is, from 1 on; the last one, which trains the student, if not given.
            left_out: how many stages there were not before the last one.
        """
        if self.schedule != "minidisc" or self.stages == 1:
            return self
        before = min(number or self.stages, self.stages) - 1
        is_last = before == self.stages - 1
        finding = last = self.steps(rows)
        own: dict[str, Any] = {}
        if self.sandwich_share is not None:
            every = self.stages * self.steps(rows)
            found = self.sandwich_share * every
            finding, last = max(1, round(found / (self.stages - 1))), max(1, round(every - found))
            own["max_steps"] = last if is_last else finding
        if self.decay_over == "run" and self.no_gap != "stop":
            every = (self.stages - 1) * finding + last
            start, end = (before - left_out) * finding / every, 1.0 if is_last else (before + 1) * finding / every
            peak, final = self.learning_rate, self.final_learning_rate
            own["learning_rate"], own["final_learning_rate"] = ((1 - x) * peak + x * final for x in (start, end))
        if self.second_learning_rate is not None and is_last:
            own["learning_rate"] = self.second_learning_rate
        return dataclasses.replace(self, **own)

    def rule_of_step(self, candidates: int) -> str:
        """``candidates_per_step`` for so many: of one or two, all are trained in every step."""
        return self.candidates_per_step if candidates > 2 else "all"

    @property
    def effective_loss(self) -> Loss:
        """What students learn by: labels, whatever ``loss`` is, with the schedule finetune."""
        return "labels" if self.schedule == "finetune" else self.loss

    def budget(self) -> Budget | None:
        """What the target sparsity is to be solved for, if it is not given.

        Raises:
            UserError: it is no quantity of its kind.
        """
        for name, (units, example) in BUDGETS.items():
            text = getattr(self, name)
            if text is not None:
                return Budget(name, text, quantity(flag(name), text, units, example))
        return None

    def at(self, sparsity: float) -> CompressSettings:
        """The same settings with a target sparsity in place of a budget.

        Raises:
            UserError: settings that do not go with it.
        """
        target: dict[str, Any] = {**dict.fromkeys(BUDGETS), "target_sparsity": sparsity}
        return dataclasses.replace(self, **target)

    def _check_target(self) -> None:
        require(
            0 <= self.target_sparsity < 1,
            f"--target-sparsity is {self.target_sparsity:g}; it is the fraction removed, in [0, 1), such as 0.9.",
        )
        require(
            self.target_sparsity > 0,
            "--target-sparsity 0 gives a student as large as the teacher; give the fraction to remove, such as 0.9.",
        )
        chain = (0.0, *(self.assistants or ()), self.target_sparsity)
        require(
            list(chain) == sorted(set(chain)),
            f"--assistants is {','.join(f'{s:g}' for s in chain[1:-1])}; the sparsities must rise, all between 0 and "
            f"the target ({self.target_sparsity:g}).",
        )


def sandwich_rule(candidates_per_step: str) -> tuple[bool, int | None]:
    """Which sub-networks are trained in a step beside the smallest.

    Returns:
        Whether the largest is trained in every step, and how many of the others are drawn, None being all of them.

    Raises:
        UserError: if the text is neither ``all`` nor ``largest+smallest+K`` nor ``smallest+K``.
    """
    if candidates_per_step == "all":
        return True, None
    prefix, _, count = candidates_per_step.rpartition("+")
    if prefix in ("largest+smallest", "smallest") and count.isdecimal():
        return prefix != "smallest", int(count)
    raise UserError(
        f"--candidates-per-step is {candidates_per_step!r}; allowed are 'all', 'largest+smallest+K' and 'smallest+K', "
        "K = 0, 1, 2, …"
    )


def documents_to_write(train_text: str) -> int:
    """N of ``generate:N``; 0 if that is not what the text is."""
    prefix, _, count = train_text.partition(":")
    return int(count) if prefix == "generate" and count.isdecimal() else 0
