"""A family is added by one file: the one that the documentation shows."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from minidisc import architectures
from minidisc.architectures import architecture_for
from minidisc.errors import UserError
from minidisc.extraction import extract
from minidisc.importance import Importance
from minidisc.measure import Shape
from minidisc.nested import NestedNetwork, order_by_importance
from minidisc.subnetworks import SubnetworkSpec, full_width
from tests.unit.families import randomise

ROOT = Path(__file__).parents[2]
PAGE = "docs/adding-a-family.md"
BLOCKS, HEADS, WIDTH, NEURONS = 3, 4, 32, 48


class ToyConfig(PreTrainedConfig):
    model_type = "toy"

    def __init__(self, n_blocks=BLOCKS, n_heads=HEADS, width=WIDTH, inner=NEURONS, **kwargs):
        super().__init__(**kwargs)
        self.n_blocks, self.n_heads, self.width, self.inner = n_blocks, n_heads, width, inner


class ToyAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.count, self.size = config.n_heads, config.width // config.n_heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, states):
        rows, length, _ = states.shape
        parts = self.qkv(states).chunk(3, dim=-1)
        query, key, value = (x.view(rows, -1, self.count, self.size).transpose(1, 2) for x in parts)
        attended = (query @ key.mT / self.size**0.5).softmax(-1) @ value
        return self.out(attended.transpose(1, 2).reshape(rows, length, -1)), None


class ToyBlock(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.attend = ToyAttention(config)
        self.up, self.down = nn.Linear(config.width, config.inner), nn.Linear(config.inner, config.width)

    def forward(self, states):
        states = states + self.attend(states)[0]
        return states + self.down(F.gelu(self.up(states)))


class ToyPreTrained(PreTrainedModel):
    config_class = ToyConfig
    base_model_prefix = "body"


class ToyModel(ToyPreTrained):
    def __init__(self, config):
        super().__init__(config)
        self.tokens, self.places = nn.Embedding(60, config.width), nn.Embedding(16, config.width)
        self.blocks = nn.ModuleList([ToyBlock(config) for _ in range(config.n_blocks)])
        self.post_init()

    def forward(self, input_ids):
        states = self.tokens(input_ids) + self.places.weight[: input_ids.shape[1]]
        for block in self.blocks:
            states = block(states)
        return states


class ToyForSequenceClassification(ToyPreTrained):
    def __init__(self, config):
        super().__init__(config)
        self.body, self.classifier = ToyModel(config), nn.Linear(config.width, config.num_labels)
        self.post_init()

    def forward(self, input_ids):
        return SequenceClassifierOutput(logits=self.classifier(self.body(input_ids)[:, 0]))


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The architecture, declared by the documentation's code and nothing else."""
    declaration = (ROOT / PAGE).read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    assert len(declaration.splitlines()) < 40
    (tmp_path / "toy.py").write_text(declaration, encoding="utf-8")
    monkeypatch.setattr(architectures, "__path__", [*architectures.__path__, str(tmp_path)])
    monkeypatch.setattr(architectures, "FAMILIES", (*architectures.FAMILIES, "toy"))
    AutoConfig.register("toy", ToyConfig, exist_ok=True)
    AutoModelForSequenceClassification.register(ToyConfig, ToyForSequenceClassification, exist_ok=True)
    yield architecture_for("toy")
    del sys.modules["minidisc.architectures.toy"]


def test_one_file_is_enough(toy):
    teacher = ToyForSequenceClassification(ToyConfig()).eval()
    randomise(teacher, seed=1)
    inputs = torch.randint(60, (4, 11), generator=torch.Generator().manual_seed(0))
    shape, model = Shape.of(teacher, toy), copy.deepcopy(teacher)
    assert (shape.layers, shape.heads, shape.neurons) == (BLOCKS, HEADS, NEURONS)
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(BLOCKS, HEADS, generator=generator), torch.rand(BLOCKS, NEURONS, generator=generator)
    order_by_importance(model, toy, Importance(*scores))
    assert not torch.equal(model.body.blocks[0].down.weight, teacher.body.blocks[0].down.weight)
    network = NestedNetwork(model, toy)
    with torch.no_grad():
        expected = teacher(inputs).logits
        for spec in (None, full_width(BLOCKS, HEADS, NEURONS)):
            network.activate(spec)
            torch.testing.assert_close(model(inputs).logits, expected, atol=1e-5, rtol=0)
        for heads, neurons in [((2, 3, 1), (30, 7, 48)), ((1, 0, 4), (0, 9, 16)), ((0, 0, 0), (5, 0, 0))]:
            spec = SubnetworkSpec(0.5, heads, neurons)
            network.activate(spec)
            found = model(inputs).logits
            assert (found - expected).abs().max() > 1e-2
            small = extract(model, spec)
            torch.testing.assert_close(small(inputs).logits, found, atol=1e-5, rtol=0)
            assert sum(p.numel() for p in small.parameters()) == shape.sizes(spec).all


def test_an_unknown_family_is_refused_with_the_known_ones_and_the_page():
    with pytest.raises(UserError, match="'toy' is not known") as caught:
        architecture_for("toy")
    assert "\n" not in str(caught.value)
    assert all(family in str(caught.value) for family in architectures.FAMILIES)
    assert PAGE in str(caught.value)
    assert PAGE in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
