"""From a PyTorch model to files of other engines."""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from minidisc.errors import UserError
from minidisc.modeling.narrow import Conv1D, inputs_of, outputs_first

# A protobuf file cannot be larger than 2 GiB; the graph needs some of it.
_ONE_FILE = 2_000_000_000


def write_onnx(model: Any, inputs: dict[str, Tensor], path: Path) -> None:
    """Write a classifier as ONNX: tokens in, ``logits`` out, any number of rows of any length.

    Args:
        model: in evaluation mode, on the CPU; not changed.
        inputs: a batch of at least two rows, each of shape (rows, length), which the graph is traced with.
        path: the file. The weights stand in it, or beside it if they have more than 2 GB.

    Raises:
        UserError: torch cannot trace the model, or write it as ONNX.
    """
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    try:
        with _quiet():
            program = _traced(model, inputs)
            program.save(path, external_data=weights > _ONE_FILE)
    except Exception as error:  # whatever the model's code, the tracer and the converter may raise
        cause = error.__cause__ or error
        reason = (str(cause).strip().splitlines() or [""])[0].rstrip(".")
        raise UserError(
            f"a model of type {model.config.model_type!r} cannot be exported by torch {torch.__version__} "
            f"({type(cause).__name__}: {reason[:200]}); use it from PyTorch."
        ) from None


def _traced(model: Any, inputs: dict[str, Tensor]) -> Any:
    model = _without_empty_maps(model)
    for module in model.modules():
        # Spelled out, attention runs faster in ONNX Runtime than as what the converter makes of PyTorch's function,
        # and of that it converts none whose scores have a bias, as T5's. T5's encoder has a configuration of its own.
        if isinstance(module, PreTrainedModel):
            module.config._attn_implementation = "eager"
    return torch.onnx.export(
        _Logits(model, list(inputs)).eval(),
        tuple(inputs.values()),
        dynamo=True,
        dynamic_shapes={"values": tuple({0: "batch", 1: "length"} for _ in inputs)},
        input_names=list(inputs),
        output_names=["logits"],
        verbose=False,
    )


def write_int8(source: Path, target: Path) -> None:
    """Write an ONNX file again with 8-bit weights and embeddings; activations become 8-bit while it runs.

    Args:
        source: what `write_onnx` wrote.
        target: the file.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(
            source,
            target,
            per_channel=True,
            # Seven bits: on processors without VNNI instructions sums of products of eight bits overflow.
            reduce_range=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=source.stat().st_size > _ONE_FILE or source.with_name("model.onnx.data").exists(),
        )


def write_openvino(source: Path, target: Path) -> None:
    """Write an ONNX file in OpenVINO's own format, fp32.

    Args:
        source: what `write_onnx` wrote.
        target: the ``.xml`` file; the weights come beside it.
    """
    import openvino

    # Not `convert_model`, which calls home where openvino-telemetry is installed.
    openvino.save_model(openvino.Core().read_model(source), target, compress_to_fp16=False)


class _Logits(nn.Module):
    """A classifier that takes its inputs in order, and returns nothing but logits."""

    def __init__(self, model: Any, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *values: Tensor) -> Tensor:
        return self.model(**dict(zip(self.names, values, strict=True))).logits


class _Constant(nn.Module):
    """A linear map of no inputs: what it returns depends on nothing but its bias."""

    def __init__(self, linear: Any) -> None:
        super().__init__()
        # T5 reads its type.
        self.weight = linear.weight
        outputs = outputs_first(linear, linear.weight).shape[0]
        self.bias = torch.zeros(outputs) if linear.bias is None else linear.bias

    def forward(self, values: Tensor) -> Tensor:
        return self.bias.expand(*values.shape[:-1], -1)


def _without_empty_maps(model: Any) -> Any:
    """A copy in which what a layer without heads, or without neurons, ends in is a constant.

    All that led to it then falls out of the graph: engines handle tensors without elements badly (ONNX's Reshape
    takes a dimension of 0 for "as in the input").
    """
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear | Conv1D) and inputs_of(child) == 0:
                setattr(module, name, _Constant(child))
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the converters say about themselves: nothing that a user could act on."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
