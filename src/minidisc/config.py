"""Settings of every command, as dataclasses; each default and each help text stands here and nowhere else."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from minidisc.errors import UserError
from minidisc.quantities import BYTES, MILLISECONDS, PARAMETERS, SHARE, quantity

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
Precision = Literal["auto", "fp32", "bf16"]
Optimizer = Literal["adamw", "adafactor"]
ExportFormat = Literal["onnx", "openvino"]
T5Form = Literal["encoder", "enct5", "encoder-decoder"]


DEFAULT_SPARSITY = 0.9
_BUDGETS = {
    "target_params": (PARAMETERS, "2M"),
    "target_size": (BYTES, "20MB"),
    "target_latency": (MILLISECONDS, "3ms"),
    "max_drop": (SHARE, "1%"),
}
TARGETS = ("target_sparsity", *_BUDGETS)
"""Settings of `CompressSettings` of which one is given at most: the student's size, or what it is solved for."""


@dataclass(frozen=True)
class Budget:
    """What a student may take or lose.

    ``name`` is the setting's, ``text`` its value, ``limit`` the same in parameters, bytes, milliseconds, or units of
    the metric.
    """

    name: str
    text: str
    limit: float

    @property
    def flag(self) -> str:
        """As it was given: ``--target-params 2M``."""
        return f"{_flag(self.name)} {self.text}"


def option(default: Any, help: str) -> Any:
    """A dataclass field whose help text the command line shows."""
    return dataclasses.field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Where the rows come from and how they become tokens."""

    task: str | None = option(
        None,
        "glue/NAME (cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli), conll2003, a Hub dataset id, or, for own "
        "files, 'classification', 'regression', 'token-classification' or 'causal-lm' (found out from model and rows "
        "when not given)",
    )
    train_file: str | None = option(
        None, "training rows: CSV, TSV, JSONL, Parquet, CoNLL columns or plain text, also .gz or .bz2"
    )
    validation_file: str | None = option(None, "validation rows, same formats")
    data_dir: str | None = option(None, "local copy of the benchmark: DIR/TASK/{train,validation}.jsonl.gz")
    text_columns: tuple[str, ...] | None = option(
        None, "one text column (for token classification, of lists of words), or two separated by a comma"
    )
    label_column: str | None = option(None, "column of labels, or of tag lists (default: 'label', 'ner_tags')")
    max_length: int = option(
        128,
        "tokens a row is cut to (a word that is cut off counts as predicted O), or that documents are packed to "
        "(causal-lm)",
    )
    max_train_rows: int | None = option(None, "use only this many training rows, drawn with --seed")
    stream: bool = option(
        False,
        "read training rows one after another until there are --max-train-rows, of a corpus that need not fit on the "
        "disk: --train-file may be a pattern or URL of JSONL, Parquet or text (a row a line), or --task a Hub id",
    )

    def __post_init__(self) -> None:
        _require(self.max_length >= 4, f"--max-length is {self.max_length}; it must be at least 4.")
        if self.text_columns is not None:
            _require(
                1 <= len(self.text_columns) <= 2,
                f"--text-columns names {len(self.text_columns)} columns; give one, or two separated by a comma.",
            )
        rows = self.max_train_rows
        _require(rows is None or rows >= 1, f"--max-train-rows is {rows}; it must be at least 1.")
        _require(
            not self.stream or rows is not None,
            "--stream needs --max-train-rows; give steps times rows in a batch for one pass without repetition.",
        )


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How any network is trained, be it a teacher or a student."""

    epochs: float = option(3.0, "passes over the training rows (of each stage)")
    max_steps: int | None = option(None, "optimiser steps (of each stage); overrides --epochs")
    batch_size: int = option(32, "rows in a batch")
    gradient_accumulation_steps: int = option(1, "batches an optimiser step is averaged over")
    optimizer: Optimizer = option(
        "adamw", "adamw, or adafactor, which keeps next to nothing where AdamW keeps two numbers for every weight"
    )
    learning_rate: float = option(5e-5, "peak learning rate")
    warmup: float = option(0.1, "fraction of the steps over which the learning rate rises; it then falls linearly")
    final_learning_rate: float = option(0.0, "learning rate to which it falls")
    weight_decay: float = option(0.01, "the optimiser's weight decay")
    max_grad_norm: float = option(1.0, "gradients are clipped to this norm")
    patience: int = option(5, "stop after this many evaluations without gain")
    evaluations_per_epoch: int = option(1, "how often an epoch is evaluated (and can be resumed from)")
    seed: int = option(0, "seed of everything random")
    device: str = option("auto", "auto, cpu, cuda or mps")
    precision: Precision = option("auto", "auto, fp32 or bf16 autocast; auto times both on the device")
    gradient_checkpointing: bool = option(
        False, "keep only the layers' inputs for the backward pass: less memory, about a third more time"
    )
    compile: bool = option(
        False,
        "compile layers by torch.compile, once for each width: some seconds each, which a long run on a GPU may make "
        "up for (on a CPU it was no faster)",
    )

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "gradient_accumulation_steps", "learning_rate", "evaluations_per_epoch"):
            value = getattr(self, name)
            _require(value > 0, f"{_flag(name)} is {value}; it must be greater than 0.")
        _require(
            self.max_steps is None or self.max_steps > 0, f"--max-steps is {self.max_steps}; it must be positive."
        )
        _require(0 <= self.warmup < 1, f"--warmup is {self.warmup}; it is a fraction of the steps, in [0, 1).")
        _require(
            0 <= self.final_learning_rate < self.learning_rate,
            f"--final-learning-rate is {self.final_learning_rate:g}; allowed is from 0 to less than the peak "
            f"({self.learning_rate:g}).",
        )
        _require(self.patience >= 1, f"--patience is {self.patience}; it must be at least 1.")
        _require(self.seed >= 0, f"--seed is {self.seed}; it must not be negative.")
        _choice("device", self.device, ("auto", "cpu", "cuda", "mps"))
        _choice("precision", self.precision, get_args(Precision))
        _choice("optimizer", self.optimizer, get_args(Optimizer))

    def steps_per_epoch(self, rows: int) -> int:
        """Optimiser steps of a pass over so many rows."""
        return math.ceil(math.ceil(rows / self.batch_size) / self.gradient_accumulation_steps)

    def steps(self, rows: int) -> int:
        """Optimiser steps of a stage on so many rows, if nothing stops it early."""
        return self.max_steps or math.ceil(self.epochs * self.steps_per_epoch(rows))

    def repeats(self, rows: int) -> bool:
        """Whether a stage on so many rows comes to some of them again, if nothing stops it early."""
        return self.steps(rows) > self.steps_per_epoch(rows)


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(DataSettings, TrainingSettings):
    """`minidisc finetune`: a pre-trained model and labelled rows in, a teacher out."""

    model: str = option(None, "folder or Hub id of the pre-trained model")
    output_dir: str = option(None, "where the fine-tuned model is put")
    t5_form: T5Form | None = option(
        None,
        "what a T5 becomes to classify sentences: encoder (the mean of its states), enct5 (the encoder and one "
        "decoder layer that reads a learnt prompt) or encoder-decoder (the state of the end token) (default: encoder; "
        "what is a sentence classifier already stays what it is)",
    )
    trust_remote_code: bool = option(False, "run code that comes with the model; only for models you trust")

    def __post_init__(self) -> None:
        DataSettings.__post_init__(self)
        TrainingSettings.__post_init__(self)
        _require(bool(self.model), "--model is missing; give a folder or a Hub id.")
        _require(bool(self.output_dir), "--output-dir is missing; give a folder that does not exist yet.")
        _choice("t5_form", self.t5_form or "encoder", get_args(T5Form))


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(DataSettings):
    """`minidisc evaluate`: a fine-tuned model and validation rows in, metrics out."""

    model: str = option(None, "folder or Hub id of the fine-tuned model")
    batch_size: int = option(64, "rows in a batch")
    device: str = option("auto", "auto, cpu, cuda or mps")
    seed: int = option(0, "seed of row sampling")
    trust_remote_code: bool = option(False, "run code that comes with the model; only for models you trust")

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(bool(self.model), "--model is missing; give a folder or a Hub id.")
        _require(self.batch_size > 0, f"--batch-size is {self.batch_size}; it must be greater than 0.")
        _choice("device", self.device, ("auto", "cpu", "cuda", "mps"))


@dataclass(frozen=True, kw_only=True)
class ExportSettings(DataSettings):
    """`minidisc export`: a saved model and validation rows in, a model that runs without PyTorch out."""

    model: str = option(None, "folder or Hub id of a student, an assistant or any fine-tuned model")
    output_dir: str = option(None, "where the exported model is put")
    format: ExportFormat = option("onnx", "onnx, or openvino where that package is installed")
    int8: bool = option(False, "also write a copy with 8-bit weights, and check its metric")
    max_drop: float = option(0.01, "largest loss of the metric through --int8 that is accepted, absolute")
    batch_size: int = option(64, "rows in a batch")
    seed: int = option(0, "seed of row sampling")
    trust_remote_code: bool = option(False, "run code that comes with the model; only for models you trust")

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(bool(self.model), "--model is missing; give a folder or a Hub id.")
        _require(bool(self.output_dir), "--output-dir is missing; give a folder that does not exist yet.")
        _require(
            self.format != "gguf",
            "--format gguf is not possible: GGUF's engines run architectures they know by name, and a model with its "
            "own width in every layer is none of them; use --format onnx. A language model's student of --widths "
            "uniform is a plain checkpoint, which llama.cpp's own convert_hf_to_gguf.py takes.",
        )
        _choice("format", self.format, get_args(ExportFormat))
        _require(not self.int8 or self.format == "onnx", f"--int8 goes with --format onnx, not {self.format}.")
        _require(0 <= self.max_drop < 1, f"--max-drop is {self.max_drop:g}; allowed is [0, 1).")
        _require(self.batch_size > 0, f"--batch-size is {self.batch_size}; it must be greater than 0.")


@dataclass(frozen=True, kw_only=True)
class CompressSettings(DataSettings, TrainingSettings):
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
    target_size: str = option(None, "at most so much disk for the saved weights (fp32), such as 20MB or 20MiB")
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
        "in the training text (not for language models)",
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
        "minidisc's stages, each of which goes on from where the one before left it (not with --no-gap stop, which "
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
        "part of the labelled training rows kept for selection, at most 2,000 (default: a tenth, but 500 rows where "
        "that is no more than a quarter)",
    )
    calibration_rows: int = option(1024, "labelled training rows that importance is computed on")
    dropout: float = option(0.0, "dropout of the sub-networks while they are trained")
    trust_remote_code: bool = option(False, "run code that comes with the teacher; only for models you trust")
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
        DataSettings.__post_init__(self)
        TrainingSettings.__post_init__(self)
        _require(bool(self.teacher), "--teacher is missing; give a folder or a Hub id of a fine-tuned model.")
        _require(bool(self.output_dir), "--output-dir is missing; give a folder for the run.")
        given = [name for name in TARGETS if getattr(self, name) is not None]
        _require(len(given) <= 1, f"{' and '.join(map(_flag, given))} are given; give one target.")
        if not given:
            object.__setattr__(self, "target_sparsity", DEFAULT_SPARSITY)
        budget = self.budget()
        _require(
            budget is None or (self.student == "pruned" and self.second_importance == "teacher"),
            f"{budget and budget.flag} goes with --student pruned and --second-importance teacher: other "
            "students' sizes are not known before.",
        )
        _require(
            self.max_drop is None or (self.schedule == "minidisc" and not self.assistants and self.stages <= 2),
            "--max-drop goes with --schedule minidisc and up to two stages, and not with --assistants.",
        )
        for name in ("latency_batch_size", "latency_length"):
            value = getattr(self, name)
            _require(value is None or value >= 1, f"{_flag(name)} is {value}; it must be at least 1.")
        _require(
            (self.latency_length or 1) <= self.max_length,
            f"--latency-length is {self.latency_length}, but rows are cut to --max-length {self.max_length} tokens.",
        )
        if self.target_sparsity is not None:  # a budget's is known once it has been solved for
            self._check_target()
        _require(0 <= self.tradeoff_lambda <= 1, f"--tradeoff-lambda is {self.tradeoff_lambda:g}; allowed is [0, 1].")
        for sparsity in self.grid or ():
            _require(0 < sparsity < 1, f"--grid holds {sparsity:g}; every sparsity must lie between 0 and 1.")
        thin = self.embedding_rank
        _require(thin is None or thin >= 1, f"--embedding-rank is {thin}; it must be at least 1.")
        _require(self.neuron_multiple >= 1, f"--neuron-multiple is {self.neuron_multiple}; it must be at least 1.")
        _require(self.stages >= 1, f"--stages is {self.stages}; it must be at least 1 (2 is the method's default).")
        _choice("schedule", self.schedule, get_args(Schedule))
        _choice("student", self.student, get_args(Student))
        _choice("loss", self.loss, get_args(Loss))
        _require(
            self.student == "pruned" or self.schedule in ("direct", "finetune"),
            f"--student layers goes with --schedule direct or finetune, not {self.schedule}.",
        )
        _require(
            self.schedule != "chain" or bool(self.assistants),
            "--schedule chain needs --assistants, such as --assistants 0.6,0.8.",
        )
        _require(
            self.schedule in ("chain", "minidisc") or not self.assistants,
            f"--assistants goes with --schedule chain or minidisc, not {self.schedule}.",
        )
        _require(
            self.schedule != "minidisc" or not self.assistants or len(self.assistants) == self.stages - 1,
            f"--assistants names {len(self.assistants or ())}, but --stages {self.stages} of minidisc has "
            f"{self.stages - 1}; give as many.",
        )
        _choice("second_stage", self.second_stage, get_args(SecondStage))
        if self.train_text is not None:
            _require(
                documents_to_write(self.train_text) >= 64,
                f"--train-text is {self.train_text!r}; allowed is generate:N, N from 64 on.",
            )
            _require(not self.train_file, "--train-text and --train-file are both given; give one.")
        _choice("widths", self.widths, get_args(Widths))
        top = self.teacher_top_k
        _require(top is None or top >= 1, f"--teacher-top-k is {top}; it must be at least 1.")
        _choice("importance_on", self.importance_on, get_args(ImportanceOn))
        _choice("second_importance", self.second_importance, get_args(SecondImportance))
        _require(
            self.second_importance == "teacher" or self.second_stage == "student",
            "--second-importance assistant goes with --second-stage student: a sandwich holds prefixes of one order.",
        )
        _choice("no_gap", self.no_gap, get_args(NoGap))
        _choice("second_teacher", self.second_teacher, get_args(SecondTeacher))
        _choice("decay_over", self.decay_over, get_args(DecayOver))
        _require(self.teacher_cache >= 0, f"--teacher-cache is {self.teacher_cache:g}; it must not be negative.")
        _choice("select_on", self.select_on, get_args(SelectOn))
        fraction = self.selection_fraction
        _require(
            fraction is None or 0 < fraction < 1,
            f"--selection-fraction is {fraction or 0:g}; allowed is between 0 and 1.",
        )
        _require(self.calibration_rows >= 1, f"--calibration-rows is {self.calibration_rows}; it must be at least 1.")
        _require(0 <= self.dropout < 1, f"--dropout is {self.dropout:g}; allowed is [0, 1).")
        sandwich_rule(self.candidates_per_step)
        rate = self.second_learning_rate
        _require(rate is None or rate > 0, f"--second-learning-rate is {rate or 0:g}; it must be positive.")
        _require(
            rate is None or self.decay_over == "stage",
            "--second-learning-rate goes with --decay-over stage; with run, the last stage's rate follows from the "
            "one before.",
        )
        share = self.sandwich_share
        _require(share is None or 0 < share < 1, f"--sandwich-share is {share or 0:g}; allowed is between 0 and 1.")

    def of_stage(self, rows: int, number: int | None = None) -> CompressSettings:
        """The settings of one of minidisc's stages on so many rows: its own steps, and its own learning rates.

        Args:
            rows: training rows.
            number: which stage it is, from 1 on; the last one, which trains the student, if not given.
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
            done = before * finding, before * finding + (last if is_last else finding)
            start, end = (step / ((self.stages - 1) * finding + last) for step in done)
            peak, final = self.learning_rate, self.final_learning_rate
            own["learning_rate"], own["final_learning_rate"] = ((1 - x) * peak + x * final for x in (start, end))
        if self.second_learning_rate is not None and is_last:
            own["learning_rate"] = self.second_learning_rate
        return dataclasses.replace(self, **own)

    def rule_of_step(self, candidates: int) -> str:
        """``candidates_per_step`` for so many: of one or two, all are trained in every step."""
        return self.candidates_per_step if candidates > 2 else "all"

    def budget(self) -> Budget | None:
        """What the target sparsity is to be solved for, if it is not given.

        Raises:
            UserError: it is no quantity of its kind.
        """
        for name, (units, example) in _BUDGETS.items():
            text = getattr(self, name)
            if text is not None:
                return Budget(name, text, quantity(_flag(name), text, units, example))
        return None

    def at(self, sparsity: float) -> CompressSettings:
        """The same settings with a target sparsity in place of a budget.

        Raises:
            UserError: settings that do not go with it.
        """
        target: dict[str, Any] = {**dict.fromkeys(_BUDGETS), "target_sparsity": sparsity}
        return dataclasses.replace(self, **target)

    def _check_target(self) -> None:
        _require(
            0 <= self.target_sparsity < 1,
            f"--target-sparsity is {self.target_sparsity:g}; it is the fraction removed, in [0, 1), such as 0.9.",
        )
        _require(
            self.target_sparsity > 0,
            "--target-sparsity 0 gives a student as large as the teacher; give the fraction to remove, such as 0.9.",
        )
        chain = (0.0, *(self.assistants or ()), self.target_sparsity)
        _require(
            list(chain) == sorted(set(chain)),
            f"--assistants is {','.join(f'{s:g}' for s in chain[1:-1])}; the sparsities must rise, all between 0 and "
            f"the target ({self.target_sparsity:g}).",
        )


@dataclass(frozen=True, kw_only=True)
class CompareSettings(CompressSettings):
    """`minidisc compare`: several methods on one teacher and task, on equal terms."""

    seed: int = option(0, "seed that draws --max-train-rows, the same rows for every cell")
    methods: tuple[str, ...] = option(
        ("minidisc", "direct"),
        "methods, comma-separated: a schedule, and settings of compress where they differ, such as "
        "minidisc:stages=3:second_stage=sandwich or chain:assistants=0.6/0.8; direct:flops_of=minidisc gets as many "
        "FLOPs as another method spent",
    )
    target_sparsities: tuple[float, ...] = option((0.9,), "target sparsities, comma-separated")
    seeds: tuple[int, ...] = option((0, 1, 2), "seeds of training, comma-separated")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("methods", "target_sparsities", "seeds"):
            values = getattr(self, name)
            _require(bool(values), f"{_flag(name)} is empty; give at least one.")
            _require(len(set(values)) == len(values), f"{_flag(name)} holds something twice; give each once.")
        _require(min(self.seeds) >= 0, f"--seeds holds {min(self.seeds)}; seeds must not be negative.")
        for target in self.target_sparsities:
            _require(
                0 < target < 1,
                f"--target-sparsities holds {target:g}; each is the fraction removed, between 0 and 1, such as 0.9.",
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
    if prefix in ("largest+smallest", "smallest") and count.isdigit():
        return prefix != "smallest", int(count)
    raise UserError(
        f"--candidates-per-step is {candidates_per_step!r}; allowed are 'all', 'largest+smallest+K' and 'smallest+K', "
        "K = 0, 1, 2, …"
    )


def documents_to_write(train_text: str) -> int:
    """N of ``generate:N``; 0 if that is not what the text is."""
    prefix, _, count = train_text.partition(":")
    return int(count) if prefix == "generate" and count.isdecimal() else 0


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    _require(value in allowed, f"{_flag(name)} is {value!r}; allowed are {', '.join(allowed)}.")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)
