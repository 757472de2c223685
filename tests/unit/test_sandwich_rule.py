import numpy as np
import pytest
import torch

from minidisc.errors import UserError
from minidisc.subnetworks import SubnetworkSpec
from tests.unit.trainers import trainer_for


def many(count):
    return [SubnetworkSpec(1 - n / 100, (1,) * 3, (n,) * 3) for n in range(1, count + 1)]


def chooser(tmp_path, rule, candidates, seed=0):
    return trainer_for(tmp_path, candidates=candidates, candidates_per_step=rule, seed=seed).step_candidates


@pytest.mark.parametrize("extra", [0, 1, 3])
def test_sandwich_rule(tmp_path, extra):
    candidates = many(8)
    shuffled = [candidates[i] for i in (3, 0, 7, 5, 1, 2, 6, 4)]
    choose = chooser(tmp_path, f"largest+smallest+{extra}", shuffled)
    seen = set()
    for step in range(60):
        chosen = choose(step)
        assert len(chosen) == len(set(chosen)) == 2 + extra
        assert (chosen[0], chosen[-1]) == (candidates[0], candidates[-1])
        assert chosen == sorted(chosen, key=lambda c: c.neurons)
        seen.update(chosen[1:-1])
    assert seen == (set(candidates[1:-1]) if extra else set())


@pytest.mark.parametrize("extra", [0, 1, 3])
def test_sandwich_rule_without_the_largest(tmp_path, extra):
    candidates = many(8)
    rule = f"smallest+{extra}"
    choose = trainer_for(tmp_path, candidates=candidates, candidates_per_step=rule, always=[candidates[1]])
    seen = set()
    for step in range(60):
        chosen = choose.step_candidates(step)
        assert len(chosen) == 2 + extra
        assert chosen[:2] == candidates[:2]
        assert chosen == sorted(chosen, key=lambda c: c.neurons)
        seen.update(chosen[2:])
    assert seen == (set(candidates[2:]) if extra else set())


@pytest.mark.parametrize("extra", [0, 1, 3])
def test_some_candidates_are_trained_at_every_step(tmp_path, extra):
    candidates = many(8)
    always = [candidates[5], candidates[0], candidates[3]]
    rule = f"largest+smallest+{extra}"
    choose = trainer_for(tmp_path, candidates=candidates, candidates_per_step=rule, always=always).step_candidates
    seen = set()
    for step in range(60):
        chosen = choose(step)
        assert {*always, candidates[-1]} <= set(chosen)
        assert len(chosen) == len(set(chosen)) == 4 + extra
        assert chosen == sorted(chosen, key=lambda c: c.neurons)
        seen.update(chosen)
    assert seen == (set(candidates) if extra else {*always, candidates[-1]})


def test_sandwich_rule_is_drawn_from_seed_and_step_alone(tmp_path):
    candidates = many(8)
    rule = "largest+smallest+1"
    one, same, other = (chooser(tmp_path, rule, candidates, seed) for seed in (0, 0, 1))
    torch.manual_seed(5)
    np.random.seed(5)
    drawn = [one(step) for step in range(30)]
    assert drawn == [same(step) for step in reversed(range(30))][::-1]
    assert drawn != [other(step) for step in range(30)]
    assert len({tuple(chosen) for chosen in drawn}) > 1


@pytest.mark.parametrize("rule", ["all", "largest+smallest+6", "largest+smallest+99"])
def test_sandwich_of_all(tmp_path, rule):
    candidates = many(8)
    assert chooser(tmp_path, rule, candidates[::-1])(3) == candidates


@pytest.mark.parametrize(("count", "rule"), [(1, "all"), (1, "largest+smallest+1"), (2, "largest+smallest+1")])
def test_sandwich_of_few(tmp_path, count, rule):
    candidates = many(count)
    assert chooser(tmp_path, rule, candidates)(0) == candidates


@pytest.mark.parametrize(("heads", "neurons"), [((1, 5, 1), (8, 8, 8)), ((1, 1, 1), (8, 8, 49))])
def test_a_candidate_wider_than_the_model_is_refused(tmp_path, heads, neurons):
    # A slice beyond the end would silently be a smaller candidate.
    with pytest.raises(UserError, match="wider than the model"):
        trainer_for(tmp_path, candidates=[SubnetworkSpec(0.5, heads, neurons)])
