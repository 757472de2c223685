import copy
import math
import os

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from minidisc.architectures import architecture_for
from minidisc.errors import UserError
from minidisc.extraction import extract
from minidisc.losses import LOSSES, Outputs, Truth, largest_logit_loss, logit_loss
from minidisc.measure import Shape
from minidisc.outputs import OutputReader
from minidisc.prediction import flops_over, model_inputs
from minidisc.subnetworks import SubnetworkSpec
from minidisc.tasks import collator
from minidisc.teaching import OutputStore, keep_largest, stored_bytes
from tests.unit.families import (
    BERT,
    ENCT5,
    HEADS,
    HIDDEN,
    LAYERS,
    LLAMA,
    NEURONS,
    T5,
    tagged_rows,
    tiny_tokenizer,
    training_rows,
)
from tests.unit.trainers import trainer_for

LENGTHS = (9, 4, 12, 7, 7, 5, 3)
CPU = torch.device("cpu")


def store(folder, outputs_of, rows, budget=1e9, flops=lambda rows, length: 0.0):
    made = OutputStore(folder, budget)
    made.fill(outputs_of, rows, collator(tiny_tokenizer()), 2, CPU, flops)
    return made


def batch_of(rows, positions):
    return collator(tiny_tokenizer())([rows[i] for i in positions])


@pytest.mark.parametrize("tokens", [False, True])
def test_what_is_read_is_what_the_network_makes(family, tokens, tmp_path):
    model = family.token_model(seed=4) if tokens else family.model(seed=4)
    rows = tagged_rows(family, (3, 1, 5, 2, 2)) if tokens else training_rows(family, LENGTHS)
    reader = OutputReader(model, architecture_for(family.family), [0, 2], relations=True)
    stored = store(tmp_path / "one", reader, rows).read(rows["length"])
    # Other rows side by side than when it was written.
    batch = batch_of(rows, [4, 0, 2])
    with torch.no_grad():
        expected = reader(model_inputs(batch, CPU))
    mask = batch["attention_mask"].bool()
    found = stored([4, 0, 2], batch["attention_mask"])
    for kind in ("states", "relations"):
        pairs = list(zip(getattr(found, kind), getattr(expected, kind), strict=True))
        assert pairs
        for value, truth in pairs:
            torch.testing.assert_close(value[mask], truth[mask], rtol=2**-10, atol=1e-4)
            assert not value[~mask].any()
    logits = (found.logits[mask], expected.logits[mask]) if tokens else (found.logits, expected.logits)
    torch.testing.assert_close(*logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["layout.json", "logits", "states"])
def test_outputs_that_a_power_cut_has_halved_are_named(name, tmp_path):
    rows = training_rows(BERT, LENGTHS)
    made = store(tmp_path / "one", OutputReader(BERT.model(), architecture_for("bert"), [0], relations=False), rows)
    file, last = tmp_path / "one" / name, len(LENGTHS) - 1
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(UserError, match=f"{file} is damaged; delete {file.parent} and go on"):
        made.read(rows["length"])([last], batch_of(rows, [last])["attention_mask"])


@pytest.mark.parametrize("largest", [0, 3])
@pytest.mark.parametrize("side", ["left", "right"])
def test_tokens_stand_where_the_mask_has_them(side, largest, tmp_path):
    model = LLAMA.causal_model(seed=4)
    rows = training_rows(LLAMA, LENGTHS)
    reader = OutputReader(model, architecture_for("llama"), [1, 2], relations=False)
    made = OutputStore(tmp_path / "one", 1e9, top_k=largest)
    made.fill(reader, rows, collator(tiny_tokenizer()), 2, CPU, lambda rows, length: 0.0)
    stored = made.read(rows["length"])
    chosen, width = [2, 1, 6], 16
    lengths = [LENGTHS[row] for row in chosen]
    mask = torch.tensor(
        [[0] * (width - n) + [1] * n if side == "left" else [1] * n + [0] * (width - n) for n in lengths]
    )
    found = stored(chosen, mask)
    for i, (row, length) in enumerate(zip(chosen, lengths, strict=True)):
        alone = stored([row], torch.ones(1, length, dtype=torch.long))
        kept = slice(width - length, None) if side == "left" else slice(length)
        pairs = [*zip(found.states, alone.states, strict=True)]
        if largest:
            pairs += [
                (getattr(found.largest, name), getattr(alone.largest, name)) for name in ("values", "places", "rest")
            ]
        else:
            pairs += [(found.logits, alone.logits)]
        for batch, truth in pairs:
            assert torch.equal(batch[i, kept], truth[0])
            assert truth.any()
            assert batch[i].count_nonzero() == truth.count_nonzero()
    # What another device gets, as far as can be seen without one.
    elsewhere = stored(chosen, mask, torch.device("meta"))
    tensors = [*elsewhere.states, elsewhere.largest.values if largest else elsewhere.logits]
    assert {(t.device.type, t.dtype) for t in tensors} == {("meta", torch.float32)}
    assert [t.shape for t in elsewhere.states] == [t.shape for t in found.states]


@pytest.mark.parametrize("loss", sorted(set(LOSSES) - {"labels"}))
def test_every_loss_is_the_same_against_stored_outputs(loss, tmp_path):
    teacher, student, architecture = BERT.model(seed=4), BERT.model(seed=5), architecture_for("bert")
    rows = training_rows(BERT, LENGTHS)
    reader = OutputReader(teacher, architecture, [0, 1, 2, 3], relations=True)
    stored = store(tmp_path / "one", reader, rows).read(rows["length"])
    batch = batch_of(rows, [1, 5, 6])
    inputs = model_inputs(batch, CPU)
    truth = Truth(inputs["attention_mask"], batch["labels"], [0, 1])
    with torch.no_grad():
        own = OutputReader(student, architecture, [0, 1, 2, 3], relations=True)(inputs)
        live = LOSSES[loss](own, reader(inputs), truth)
        assert LOSSES[loss](own, stored([1, 5, 6], truth.mask), truth).item() == pytest.approx(live.item(), rel=1e-3)


def test_the_largest_logits_of_every_token_are_kept(tmp_path):
    model, architecture = LLAMA.causal_model(seed=4), architecture_for("llama")
    rows = training_rows(LLAMA, [7] * 5)
    reader = OutputReader(model, architecture, [1], relations=False)
    made = OutputStore(tmp_path / "one", 1e9, top_k=3)
    made.fill(reader, rows, collator(tiny_tokenizer()), 2, CPU, lambda rows, length: 0.0)
    batch = batch_of(rows, [4, 0, 2])
    found = made.read(rows["length"])([4, 0, 2], batch["attention_mask"])
    with torch.no_grad():
        expected = reader(model_inputs(batch, CPU))
    torch.testing.assert_close(found.states[0], expected.states[0], rtol=2**-10, atol=1e-4)
    # By hand: of every token the three best, and nothing else.
    kept = zip(*(tensor.flatten(0, 1) for tensor in vars(found.largest).values()), strict=True)
    for (values, places, rest), live in zip(kept, expected.logits.flatten(0, 1), strict=True):
        order = sorted(range(len(live)), key=lambda i, live=live: -live[i].item())
        assert places.tolist() == order[:3]
        torch.testing.assert_close(values, live[order[:3]])
        torch.testing.assert_close(rest, live[order[3:]].exp().sum().log()[None])
    files = sum(file.stat().st_size for file in (tmp_path / "one").iterdir() if file.name in ("states", "largest"))
    assert files == stored_bytes(rows["length"], Shape.of(model, architecture), "logits", 3) + 35 * 2 * HIDDEN


MASK = torch.tensor([[1, 1, 1], [1, 1, 0]])


def test_against_the_largest_logits_all_others_are_one_class():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 6), torch.randn(2, 3, 6)
    expected = []
    for row, token in MASK.nonzero().tolist():
        p, q = teacher[row, token].softmax(-1).tolist(), student[row, token].softmax(-1).tolist()
        first, second, *others = sorted(range(6), key=lambda i, p=p: -p[i])
        pairs = [(p[i], q[i]) for i in (first, second)] + [(sum(p[i] for i in others), sum(q[i] for i in others))]
        expected.append(-sum(mine * math.log(theirs) for mine, theirs in pairs))
    assert largest_logit_loss(student, keep_largest(teacher, 2), MASK).item() == pytest.approx(sum(expected) / 5)


@pytest.mark.parametrize("count", [5, 6, 7])
def test_the_largest_logits_of_a_small_vocabulary_are_all_of_them(count):
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 6, requires_grad=True), torch.randn(2, 3, 6)
    losses = largest_logit_loss(student, keep_largest(teacher, count), MASK), logit_loss(student, teacher, MASK)
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*(torch.autograd.grad(loss, student)[0] for loss in losses))


def plain_loss(student, teacher, mask):
    """`largest_logit_loss` as autograd sees it in double precision, over the tokens alone."""
    values, places, rest, logits = (x[mask.bool()].double() for x in (*vars(teacher).values(), student))
    places, targets = places.long(), torch.cat([values, rest], -1).softmax(-1)
    others = logits.scatter(-1, places, -torch.inf).logsumexp(-1, keepdim=True)
    own = torch.cat([logits.gather(-1, places), others], -1) - logits.logsumexp(-1, keepdim=True)
    return -(targets * own).sum(-1).mean()


@pytest.mark.parametrize("others", [0.0, -300.0, 300.0, -1e4, 1e4, -math.inf])
def test_gradients_against_the_largest_logits_are_those_of_autograd(others):
    torch.manual_seed(0)
    teacher = keep_largest(torch.randn(2, 3, 9), 4)
    # All but those that are kept, or all of these but one.
    student = torch.randn(2, 3, 9) + torch.full((2, 3, 9), others).scatter(-1, teacher.places, 0.0)
    student[0, :, 0] = 1.0
    # As they are read in padding: one place again and again.
    for tensor in vars(teacher).values():
        tensor[1, 2] = 0
    student.requires_grad_()
    losses = largest_logit_loss(student, teacher, MASK), plain_loss(student, teacher, MASK)
    torch.testing.assert_close(losses[0], losses[1].float())
    found, expected = (torch.autograd.grad(loss, student)[0] for loss in losses)
    torch.testing.assert_close(found, expected, equal_nan=True)
    assert not found[1, 2].any()


class Written(TorchDispatchMode):
    """Counts tensors of so many numbers that are made."""

    def __init__(self, numbers):
        super().__init__()
        self.numbers, self.made = numbers, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.numel() == self.numbers:
            # They are held, so that none gets the memory of another.
            self.made[result.untyped_storage().data_ptr()] = result
        return result


def test_against_the_largest_logits_few_tensors_are_as_large_as_all_of_them():
    student, teacher = torch.randn(2, 3, 60, requires_grad=True), keep_largest(torch.randn(2, 3, 60), 4)
    with Written(student.numel()) as written:
        torch.autograd.grad(largest_logit_loss(student, teacher, MASK), student)
    assert len(written.made) == 2


def distance(one, other):
    return torch.cat([(one[name] - other[name]).flatten() for name in one]).norm()


def test_training_against_stored_outputs_ends_where_training_against_the_teacher_ends(tmp_path):
    ends = []
    for stores in ([], [OutputStore(tmp_path / "outputs" / f"{i}", 1e9) for i in range(2)]):
        trainer = trainer_for(tmp_path / f"{len(stores)}", teachers=[2, 3], rows=LENGTHS, epochs=3, stores=stores)
        runs = []
        for teacher in trainer.teachers:
            teacher.register_forward_hook(lambda _, args, kwargs, runs=runs: runs.append(1))
        start = copy.deepcopy(trainer.model.state_dict())
        trainer.fit()
        ends.append((trainer.model.state_dict(), start))
    (live, start), (stored, _) = ends
    assert distance(live, stored) < 0.02 * distance(start, live)


def test_logits_alone_need_no_states(tmp_path):
    rows = training_rows(BERT, LENGTHS)
    ends = []
    for stores in ([], [OutputStore(tmp_path / "outputs" / "one", 1e9)]):
        trainer = trainer_for(tmp_path / f"{len(stores)}", rows=LENGTHS, epochs=3, loss="logits", stores=stores)
        trainer.fit()
        ends.append(trainer.model.state_dict())
    assert (tmp_path / "outputs" / "one" / "states").stat().st_size == 0
    assert stored_bytes(rows["length"], Shape.of(BERT.model(), architecture_for("bert")), "logits") == 0
    start = BERT.model(seed=1).state_dict()
    assert distance(*ends) < 0.02 * distance(start, ends[0])


def test_a_teacher_runs_once_on_every_row(tmp_path):
    stores = [OutputStore(tmp_path / "outputs" / "one", 1e9)]
    seen = []
    for folder in ("first", "second"):
        trainer = trainer_for(tmp_path / folder, rows=LENGTHS, epochs=3, stores=stores)
        (teacher,) = trainer.teachers
        teacher.register_forward_pre_hook(
            lambda _, args, kwargs: seen.extend(kwargs["attention_mask"].sum(1).tolist()), with_kwargs=True
        )
        trainer.fit()
    assert sorted(seen) == sorted(LENGTHS)


def test_flops_are_counted_where_they_are_spent(tmp_path):
    # By hand: a layer of 4 heads of 8 and 48 neurons on n rows of m tokens.
    def forward(rows, length):
        linear = 2 * rows * length * HIDDEN * (4 * HIDDEN + 2 * NEURONS)
        return LAYERS * (linear + 4 * rows * length * length * HIDDEN)

    candidate = [SubnetworkSpec(0.5, (HEADS,) * LAYERS, (NEURONS,) * LAYERS)]
    stores = [OutputStore(tmp_path / "outputs" / "one", 1e9)]
    changes = {"rows": (9, 9, 5, 5), "batch_size": 2, "epochs": 2, "candidates": candidate}
    stored = trainer_for(tmp_path / "stored", stores=stores, **changes)
    live = trainer_for(tmp_path / "live", **changes)
    for trainer in (stored, live):
        trainer.fit()
    student = 2 * 3 * (forward(2, 9) + forward(2, 5))
    assert stored.cost.flops == student
    # Outputs are computed in batches of evaluation's size, here all rows at once.
    assert stores[0].cost.flops == forward(4, 9)
    assert live.cost.flops == student + 2 * (forward(2, 9) + forward(2, 5))


def test_a_pass_over_all_rows_is_batched_by_length():
    assert flops_over([3, 9, 4, 8, 1], 2, lambda rows, length: rows * length) == 2 * 9 + 2 * 4 + 1


def outputs(rows, value):
    def outputs_of(inputs):
        shape = inputs["input_ids"].shape
        return Outputs(torch.full((shape[0], 2), value), [torch.full((*shape, 4), value)])

    return outputs_of


def test_states_beyond_half_precision_are_kept_in_full(tmp_path):
    rows = training_rows(BERT, (3, 5))
    stored = store(tmp_path / "large", outputs(rows, 1e6), rows).read(rows["length"])
    assert stored([1], torch.ones(1, 5)).states[0].unique().tolist() == [1e6]


def test_the_least_recently_used_make_room_and_their_cost_stays_known(tmp_path):
    rows = training_rows(BERT, (3, 5))
    size = 8 * 4 * 2
    stores = {}
    for name in "abc":
        stores[name] = store(tmp_path / name, outputs(rows, 1.0), rows, 2 * size, flops=lambda rows, length: 7.0)
        if name == "b":
            # a is the older one, but from its reading on b is the one not used for longest.
            os.utime(tmp_path / "a", (0, 0))
            os.utime(tmp_path / "b", (1, 1))
            stores["a"].read(rows["length"]).close()
    assert [(tmp_path / name).is_dir() for name in "abc"] == [True, False, True]
    assert stores["b"].cost.flops == 7.0
    first = stores["b"].cost
    store(tmp_path / "b", outputs(rows, 1.0), rows, 2 * size)
    assert (tmp_path / "b").is_dir()
    assert stores["b"].cost == first


def test_outputs_are_whole_or_absent(tmp_path):
    rows = training_rows(BERT, (3, 5, 4))
    calls = []

    def killed(inputs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return outputs(rows, 1.0)(inputs)

    with pytest.raises(KeyboardInterrupt):
        store(tmp_path / "a", killed, rows)
    assert not list(tmp_path.iterdir())
    assert (
        store(tmp_path / "a", outputs(rows, 2.0), rows).read(rows["length"])([2], torch.ones(1, 4)).logits[0, 0] == 2
    )


# Of Llama's eight queries of four dimensions two share a key.
# T5's decoder adds the states of its two layers and of its embeddings, EncT5's, of one token, none.
@pytest.mark.parametrize(
    ("row", "states", "relations"),
    [(BERT, 4, 3 * HIDDEN), (LLAMA, 4, 8 * 4 + 2 * 4 * 4), (T5, 4 + 3, 3 * 4 * 6), (ENCT5, 4, 3 * 4 * 6)],
)
def test_size_on_disk_is_what_was_said(tmp_path, row, states, relations):
    model, rows = row.model(), training_rows(row, LENGTHS)
    architecture = architecture_for(row.family)
    narrow = extract(model, row.fit(SubnetworkSpec(0.5, (2, 2, 2), (20, 20, 20))))
    sizes = []
    for name, network in (("full", model), ("narrow", narrow)):
        reader = OutputReader(network, architecture, range(states), relations=True)
        store(tmp_path / name, reader, rows)
        sizes.append((tmp_path / name / "states").stat().st_size)
    shape = Shape.of(model, architecture)
    said = [stored_bytes(rows["length"], shape, loss) for loss in ("hidden+logits", "minilm")]
    assert said == [np.sum(LENGTHS) * width * 2 for width in (states * HIDDEN, relations)]
    assert sizes[0] == sum(said)
    assert sizes[1] < sizes[0]


def test_outputs_whose_cost_was_lost_are_computed_again(tmp_path):
    """The process was killed after the outputs had their name, and before the file beside them was written."""
    rows = training_rows(BERT, LENGTHS)
    reader = OutputReader(BERT.model(), architecture_for("bert"), [1], relations=False)
    made = store(tmp_path / "one", reader, rows)
    assert made.filled
    (tmp_path / "one.json").unlink()
    assert not made.filled
    again = store(tmp_path / "one", reader, rows)
    assert again.filled
    assert again.cost.seconds > 0
