"""What runs an exported model, called as a PyTorch model is called."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from minidisc.errors import CheckFailed, UserError

_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def check_packages(format: str) -> None:
    """Refuse a format whose packages are not installed.

    Raises:
        UserError: some are missing.
    """
    missing = [name for name in _ONNX_PACKAGES if find_spec(name) is None]
    if missing:
        raise UserError(f"export needs {' and '.join(missing)}; install with: pip install 'minidisc[onnx]'")
    if format == "openvino" and find_spec("openvino") is None:
        raise UserError("--format openvino needs OpenVINO; pip install openvino, or use --format onnx.")


class Engine:
    """A model file in the engine that its name ends for, on the CPU.

    Stands in for a PyTorch model wherever only its logits are wanted.

    Args:
        path: ``.onnx`` or ``.xml``.
        threads: how many it may use.

    Raises:
        CheckFailed: the engine cannot read the file, or, when called, not run it.
    """

    device = torch.device("cpu")

    def __init__(self, path: Path, threads: int) -> None:
        self.path = path
        self._name, build = {".onnx": ("ONNX Runtime", _onnxruntime), ".xml": ("OpenVINO", _openvino)}[path.suffix]
        try:
            self._run = build(path, threads)
        except Exception as error:  # the engines' exceptions have no common base
            raise self._failed(error) from None

    def eval(self) -> Engine:
        """There is no other mode than evaluation."""
        return self

    def __call__(self, **inputs: torch.Tensor) -> Any:
        """Logits of a batch, under ``logits``."""
        try:
            logits = self._run({name: value.numpy() for name, value in inputs.items()})
        except Exception as error:
            raise self._failed(error) from None
        return SimpleNamespace(logits=torch.from_numpy(np.asarray(logits)))

    def _failed(self, error: Exception) -> CheckFailed:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return CheckFailed(f"{self._name} cannot run the exported model ({reason[:200]}); nothing was written.")


def _onnxruntime(path: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what fails is raised
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    wanted = [value.name for value in session.get_inputs()]
    return lambda inputs: session.run(["logits"], {name: inputs[name] for name in wanted})[0]


def _openvino(path: Path, threads: int) -> Any:
    import openvino

    # Without the hint a processor that can would compute in bf16.
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(path, "CPU", settings)
    wanted = [value.any_name for value in model.inputs]
    # A copy: the engine writes the next batch's logits over these.
    return lambda inputs: np.array(model({name: inputs[name] for name in wanted})[0])
