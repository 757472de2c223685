"""Settings of the commands that work on one model: `finetune`, `evaluate`, `export`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from minidisc.config.data import ModelsRowSettings, RowSettings
from minidisc.config.options import choice, option, require
from minidisc.config.training import TrainingSettings

ExportFormat = Literal["onnx", "openvino"]
T5Form = Literal["encoder", "enct5", "encoder-decoder"]


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(RowSettings, TrainingSettings):
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
        super().__post_init__()
        require(bool(self.model), "--model is missing; give a folder or a Hub id.")
        require(bool(self.output_dir), "--output-dir is missing; give a folder that does not exist yet.")
        choice("t5_form", self.t5_form or "encoder", get_args(T5Form))


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(ModelsRowSettings):
    """`minidisc evaluate`: a fine-tuned model and validation rows in, metrics out."""

    model: str = option(None, "folder or Hub id of the fine-tuned model")
    batch_size: int = option(64, "rows in a batch")
    device: str = option("auto", "auto, cpu, cuda or mps")
    seed: int = option(0, "seed of row sampling")
    trust_remote_code: bool = option(False, "run code that comes with the model; only for models you trust")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.model), "--model is missing; give a folder or a Hub id.")
        require(self.batch_size > 0, f"--batch-size is {self.batch_size}; it must be greater than 0.")
        choice("device", self.device, ("auto", "cpu", "cuda", "mps"))


@dataclass(frozen=True, kw_only=True)
class ExportSettings(ModelsRowSettings):
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
        require(bool(self.model), "--model is missing; give a folder or a Hub id.")
        require(bool(self.output_dir), "--output-dir is missing; give a folder that does not exist yet.")
        require(
            self.format != "gguf",
            "--format gguf is not possible: GGUF's engines run architectures they know by name, and a model with its "
            "own width in every layer is none of them; use --format onnx. A language model's student of --widths "
            "uniform is a plain checkpoint, which llama.cpp's own convert_hf_to_gguf.py takes.",
        )
        choice("format", self.format, get_args(ExportFormat))
        require(not self.int8 or self.format == "onnx", f"--int8 goes with --format onnx, not {self.format}.")
        require(0 <= self.max_drop < 1, f"--max-drop is {self.max_drop:g}; allowed is [0, 1).")
        require(self.batch_size > 0, f"--batch-size is {self.batch_size}; it must be greater than 0.")
