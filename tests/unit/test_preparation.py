from types import SimpleNamespace

import pytest
import torch

from minidisc.config import CompressSettings
from minidisc.importance import Importance
from minidisc.preparation import Preparation


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
