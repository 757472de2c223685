import math
from types import SimpleNamespace

import pytest
import torch

from minidisc import latency, timings
from minidisc.subnetworks import SubnetworkSpec


def test_models_take_turns_and_medians_are_compared(monkeypatch):
    clock, calls = [0.0], []
    # Seconds of every call; the first of each does not count, and one is far off.
    seconds = {"slow": iter([9.0, 4.0, 4.0, 80.0, 4.0, 4.0]), "fast": iter([9.0, 1.0, 1.0, 1.0, 1.0, 2.0])}

    def model(name):
        def call(**inputs):
            assert list(inputs) == ["input_ids"]
            assert not torch.is_grad_enabled()
            calls.append(name)
            clock[0] += next(seconds[name])

        return call

    monkeypatch.setattr(latency.time, "perf_counter", lambda: 2 * clock[0])
    monkeypatch.setattr(latency.time, "process_time", lambda: clock[0])
    found = latency.side_by_side({name: model(name) for name in seconds}, {"input_ids": torch.ones(1, 2)}, 5, 1e9)
    assert calls == ["fast", "slow", "slow", "fast"] * 3
    assert found == {
        "slow": {
            "milliseconds": 8000.0,
            "processor_milliseconds": 4000.0,
            "low": 4000.0,
            # Of 4, 4, 4, 4, 80 the ninth tenth lies at six tenths of the way to the last.
            "high": pytest.approx(4000 + 0.6 * 76_000),
            "speedup": 1.0,
        },
        "fast": {
            "milliseconds": 2000.0,
            "processor_milliseconds": 1000.0,
            "low": 1000.0,
            "high": pytest.approx(1600.0),
            "speedup": 4.0,
        },
    }
    assert latency.is_busy(found.values())
    assert not latency.is_busy([{"milliseconds": 1.1, "processor_milliseconds": 1.0}])


def test_a_slow_model_has_fewer_rounds(monkeypatch):
    clock, calls = [0.0], []

    def model(**inputs):
        calls.append(1)
        clock[0] += 100.0

    monkeypatch.setattr(latency.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(latency.time, "process_time", lambda: clock[0])
    latency.side_by_side({"model": model}, {})
    assert len(calls) == 1 + latency.FEWEST_ROUNDS


@pytest.mark.parametrize("step", [0.004, 0.0156, math.inf])
def test_where_the_processors_clock_is_coarse_passes_are_repeated(monkeypatch, step):
    clock = [0.0]

    def model(seconds):
        def call(**inputs):
            clock[0] += seconds

        return call

    monkeypatch.setattr(latency.time, "perf_counter", lambda: 2 * clock[0])
    monkeypatch.setattr(latency.time, "process_time", lambda: clock[0] // step * step if step < math.inf else 3.0)
    # Shorter than a step, nearly as long, and some steps long.
    found = latency.side_by_side({name: model(name) for name in (0.05, 0.003, 0.0007)}, {}, 21, 2.0)
    for seconds, times in found.items():
        assert times["milliseconds"] == pytest.approx(2000 * seconds)
        # The processor's, unless it has no clock.
        expected = seconds if step < math.inf else 2 * seconds
        assert times["processor_milliseconds"] == pytest.approx(1000 * expected, rel=0.1)
        assert times["speedup"] == pytest.approx(0.05 / seconds, rel=0.15)


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with latency.one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_a_batch_has_whole_rows_last_tokens_and_no_padding():
    rows = [{"input_ids": ids} for ids in ([2, 7, 8, 3], [2, 9, 9, 9, 9, 9, 3], [5])]
    batch = latency.batch_of(rows, batch_size=4, length=6)
    assert batch["input_ids"].tolist() == [[2, 7, 8, 2, 7, 3], [2, 9, 9, 9, 9, 3], [5] * 6, [2, 7, 8, 2, 7, 3]]
    assert batch["attention_mask"].tolist() == [[1] * 6] * 4


def test_times_are_scaled_to_the_teachers_beside_the_student(monkeypatch):
    # The machine is slow beside the assistant, and fast beside another size.
    seconds = iter([(9.0, 6.0), (4.0, 1.0), (2.0, 1.0)])

    def side_by_side(models, *_):
        teacher, other = next(seconds)
        keys = ("milliseconds", "processor_milliseconds", "low", "high")
        return {
            name: {**dict.fromkeys(keys, x), "low": x / 2, "speedup": teacher / x}
            for name, x in zip(models, (teacher, other), strict=True)
        }

    monkeypatch.setattr(timings, "side_by_side", side_by_side)
    monkeypatch.setattr(timings, "batch_of", lambda *_: {})
    monkeypatch.setattr(timings, "extract", lambda *_: torch.nn.Identity())
    prepared = SimpleNamespace(
        shape=SimpleNamespace(all_parameters=1),
        settings=SimpleNamespace(latency_length=8, latency_batch_size=1),
        rows={"train": None},
        need_teacher=lambda: None,
        loaded=SimpleNamespace(model=torch.nn.Identity()),
    )
    specs = [SubnetworkSpec(0.1 * width, (width,), (9,)) for width in (5, 4, 3)]
    models = {name: (spec, torch.nn.Identity()) for name, spec in zip(("assistant", "student"), specs, strict=False)}
    # Those of the same widths are not timed again: there are no more than three rounds.
    networks = timings.timings(prepared, models, specs)["networks"]
    assert list(networks) == ["teacher", "assistant", "student", "50 %", "40 %", "30 %"]
    found = [networks[name]["processor_milliseconds"] for name in networks]
    assert found == pytest.approx([4.0, 8 / 3, 1.0, 8 / 3, 1.0, 2.0])
    assert found == pytest.approx([4.0 / networks[name]["speedup"] for name in networks])
    assert [networks[name]["low"] for name in networks] == pytest.approx([time / 2 for time in found])
