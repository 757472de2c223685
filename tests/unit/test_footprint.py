import pytest

from minidisc.architectures import architecture_for
from minidisc.footprint import Load, phases
from minidisc.measure import Shape
from tests.unit.families import BERT, HIDDEN, LAYERS, LLAMA, NEURONS, T5, VOCABULARY


def load(**changes):
    values = {
        "teacher": 1000,
        "widest": 600,
        "assistant": 0,
        "student": 0,
        "trained": 500,
        "largest": 50,
        "rows": 4,
        "calibration_rows": 2,
        "length": 10,
        "importance_bytes": 70,
        "train_bytes": 90,
        "optimizer": "adamw",
        "loss": "hidden+logits",
        "stored": True,
    }
    return Load(**{**values, **changes})


STATE = 4 * 10 * HIDDEN * 4  # bytes of a batch's hidden state
# Of a batch of twice the size: the states before and after every layer, and a layer at work.
PASS = 2 * STATE * (LAYERS + 1 + 4) + 2 * 4 * 10 * 2 * NEURONS * 4


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # Four states are compared: the embeddings' output and those of three layers.
        ({}, [4000 + 140, 4000 + 2400 + PASS + 16 * STATE, 2400 + 6000 + 400 + 360 + 8 * STATE, 0]),
        (
            {"optimizer": "adafactor", "loss": "logits"},
            [4140, 6400 + PASS, 2400 + 2000 + 400 + 360, 0],
        ),
        ({"stored": False, "loss": "logits"}, [4140, 6400, 2400 + 6000 + 400 + 360 + 4000, 0]),
        ({"bf16": True, "loss": "logits", "rows": 0}, [4140, 6400, 2400 + 6000 + 400 + 1200, 0]),
        (
            {"loss": "logits", "assistant": 300, "student": 100},
            [4140, 6400 + PASS, 2400 + 6000 + 400 + 360, 1200 + 5 * 400 + 400 + 360],
        ),
    ],
)
def test_phases_by_hand(changes, expected):
    shape = Shape.of(BERT.model(), architecture_for("bert"))
    assert [*phases(shape, load(**changes)).values()] == expected


def test_a_vocabularys_logits_by_hand():
    # Of a batch of four rows of ten tokens; the outputs are computed eight rows at a time.
    logits = 4 * 10 * VOCABULARY * 4
    names = "importance", "teacher's outputs", "training"
    found = {}
    for name, model in (("words", LLAMA.causal_model()), ("labels", LLAMA.model())):
        result = phases(Shape.of(model, architecture_for("llama")), load(loss="logits", calibration_rows=2))
        found[name] = [result[phase] for phase in names]
    more = [words - labels for words, labels in zip(found["words"], found["labels"], strict=True)]
    # Importance sees two rows: two gradients. The outputs: with and without padding. In training both networks'
    # logits and two gradients.
    assert more == [2 * logits // 2, 2 * 2 * logits, 4 * logits]


def test_an_encoder_and_a_decoder_by_hand():
    # Seven states: the embeddings and three layers, the embeddings and two.
    both = phases(Shape.of(T5.model(), architecture_for("t5")), load())["training"]
    logits_alone = phases(Shape.of(T5.model(), architecture_for("t5")), load(loss="logits"))["training"]
    assert both - logits_alone == 2 * 7 * STATE
