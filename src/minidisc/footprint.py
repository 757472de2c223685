"""Bytes of memory that each phase of a run needs, from shapes alone but for what passes keep."""

from __future__ import annotations

from dataclasses import dataclass

from minidisc.losses import WITH_STATES, distilled_layers
from minidisc.measure import Shape

_BYTES = 4  # of an fp32 number
MOMENTS = {"adamw": 2, "adafactor": 0}
"""Numbers that an optimiser keeps for every weight; Adafactor's rows and columns are next to nothing."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a run puts into memory.

    Attributes:
        teacher: parameters of the teacher.
        widest: parameters of the largest network that is trained.
        assistant: parameters of a middling one, and ``student``, of the smallest, if it is trained alone after it;
            0 where there is no such stage.
        trained: those of them that are trained.
        largest: parameters of the largest tensor that is trained.
        rows: in a batch.
        calibration_rows: in a batch of importance.
        length: tokens of the longest row.
        importance_bytes: what importance keeps of a row for its backward pass.
        train_bytes: what the largest network keeps of a row for its own.
        optimizer: a key of `MOMENTS`.
        loss: a key of `minidisc.losses.LOSSES`.
        stored: whether the teacher's outputs are stored, and its weights then dropped.
        bf16: whether passes cast the weights, and keep what they cast.
    """

    teacher: int
    widest: int
    assistant: int
    student: int
    trained: int
    largest: int
    rows: int
    calibration_rows: int
    length: int
    importance_bytes: float
    train_bytes: float
    optimizer: str
    loss: str
    stored: bool
    bf16: bool = False


def phases(shape: Shape, load: Load) -> dict[str, int]:
    """Bytes of tensors in each phase, of which the largest decides; what the process needs besides comes on top."""
    teacher, widest, trained = (_BYTES * n for n in (load.teacher, load.widest, load.trained))
    state = load.rows * load.length * shape.hidden * _BYTES
    compared = len(distilled_layers(shape.depth, shape.decoder_depth)) if load.loss in WITH_STATES else 0
    # Outputs are computed in batches of twice the size: all hidden states, those that are wanted side by side, with
    # padding and without, and what one layer is at work on.
    tokens = 2 * load.rows * load.length
    depth = shape.depth + shape.decoder_depth
    outputs = 2 * state * (depth + 1 + 2 * compared + 4) + tokens * shape.neuron_maps * shape.neurons * _BYTES
    # A language model's, of all tokens of the vocabulary, and once more without padding.
    logits = load.length * shape.vocabulary * _BYTES
    outputs += 2 * 2 * load.rows * logits
    # A gradient of a slice is a whole tensor, which is then added to the tensor's; Adafactor makes two of its own.
    at_work = 2 * _BYTES * load.largest
    training = widest + trained * (1 + MOMENTS[load.optimizer]) + at_work
    # Targets, as they are read and as they are compared. Of logits the teacher's and the network's own, and the
    # gradients of these and of what the softmax makes of them.
    activations = load.rows * load.train_bytes + 2 * compared * state + load.bf16 * widest // 2
    activations += 4 * load.rows * logits
    beside = 0 if load.stored else teacher
    # Beside the assistant and what the student was cut from; checkpoints and snapshots are files.
    second = _BYTES * (load.assistant + load.student * (3 + MOMENTS[load.optimizer])) + at_work + activations
    return {
        "importance": teacher + int(load.calibration_rows * (load.importance_bytes + 2 * logits)),
        "teacher's outputs": teacher + widest + (outputs if load.stored else 0),
        "training": int(training + activations + beside),
        "second stage": int((second + beside) * (load.student > 0)),
    }
