from types import SimpleNamespace

import torch

from minidisc.preparation import Preparation


def test_figures_name_the_gpu_they_were_measured_on(monkeypatch):
    def machine(device):
        return Preparation.machine.fget(SimpleNamespace(device=device))

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"NVIDIA {device.index}")
    threads = torch.get_num_threads()
    assert machine(torch.device("cuda", 1)).endswith(f" cores, cuda (NVIDIA 1), torch threads {threads}")
    assert machine(torch.device("cpu")).endswith(f" cores, cpu, torch threads {threads}")
