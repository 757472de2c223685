from types import SimpleNamespace

import pytest
import torch

from minidisc.architectures import architecture_for
from minidisc.config import CompressSettings
from minidisc.errors import UserError
from minidisc.importance import Importance
from minidisc.memory import free_weights
from minidisc.preparation import Preparation
from minidisc.teachers import fingerprint_of
from tests.unit.families import BERT, tiny_tokenizer


def test_figures_name_the_gpu_they_were_measured_on(monkeypatch):
    def machine(device):
        return Preparation.machine.fget(SimpleNamespace(device=device))

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"NVIDIA {device.index}")
    threads = torch.get_num_threads()
    assert machine(torch.device("cuda", 1)).endswith(f" cores, cuda (NVIDIA 1), torch threads {threads}")
    assert machine(torch.device("cpu")).endswith(f" cores, cpu, torch threads {threads}")


@pytest.mark.parametrize(
    ("settings", "neurons"),
    # The half of all neurons, of which the first layer has 11 and the second 13.
    [({}, (8, 16)), ({"neuron_multiple": 1}, (11, 13)), ({"widths": "uniform", "neuron_multiple": 5}, (10, 10))],
)
def test_layers_keep_neurons_by_the_multiple_that_the_settings_say(settings, neurons):
    given = CompressSettings(teacher="t", output_dir="o", **settings)
    scores = torch.zeros(2, 24)
    scores[0, :11] = scores[1, 11:] = 1.0
    prepared = SimpleNamespace(settings=given, shape=SimpleNamespace(needed=()))
    assert Preparation.cut(prepared, Importance(torch.ones(2, 4), scores), 0.5).neurons == neurons


def test_a_teacher_that_was_replaced_is_not_loaded_again(tmp_path):
    own, other = (BERT.model(seed=seed, num_hidden_layers=1) for seed in (0, 1))
    neurons = own.config.intermediate_size
    own.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    prepared = SimpleNamespace(
        settings=CompressSettings(teacher=str(tmp_path), output_dir="o"),
        fingerprints={"teacher_weights": fingerprint_of(str(tmp_path))},
        task=SimpleNamespace(kind="classification"),
        loaded=SimpleNamespace(model=own),
        architecture=architecture_for("bert"),
        _importance_of_teacher=Importance(*(torch.ones(1, n) for n in (own.config.num_attention_heads, neurons))),
        device=torch.device("cpu"),
    )
    free_weights(own)
    other.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=f"the teacher in {tmp_path} has changed since the run began"):
        Preparation.need_teacher(prepared)
