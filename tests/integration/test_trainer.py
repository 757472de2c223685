import copy
import math
from functools import partial
from operator import attrgetter

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from transformers import Trainer
from transformers.pytorch_utils import Conv1D

from minidisc.architectures import architecture_for
from minidisc.arguments import ResumableArguments, trainer_arguments
from minidisc.checkpointing import checkpointed
from minidisc.config import TrainingSettings
from minidisc.extraction import extract
from minidisc.finetuning import _FinetuneTrainer
from minidisc.measure import Shape
from minidisc.subnetworks import SubnetworkSpec
from minidisc.teaching import OutputStore
from tests.unit.families import BERT, HEADS, LAYERS, LLAMA, NEURONS, T5, tagged_rows, tiny_tokenizer, training_rows
from tests.unit.recorder import Recorder
from tests.unit.trainers import CANDIDATES, LARGE, SMALL, trainer_for


def as_batch(rows):
    """Rows padded by hand."""
    longest = max(rows["length"])
    names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in rows.column_names]
    return {name: torch.tensor([row + [0] * (longest - len(row)) for row in rows[name]]) for name in names}


def columns_of(family, model, spec):
    """Every linear map that heads or neurons flow into, and its columns that ``spec`` keeps."""
    heads = [kept * family.head_size for kept in spec.heads]
    return [
        *zip(family.attention_outputs(model), heads, strict=True),
        *zip(family.ffn_downs(model), spec.neurons, strict=True),
    ]


def states_of(family, output):
    """The hidden states that are compared: all, but for those of a decoder that reads no tokens."""
    if "hidden_states" in output:
        return output.hidden_states
    return [*output.encoder_hidden_states, *(output.decoder_hidden_states if family.decoder_states else ())]


def reference(family, batch, chosen, factors, learning_rate, weight_decay, clip):
    """The same training by masked weights and plain torch: no slices, no trainer."""
    student, teacher = family.model(seed=1).double(), family.model(seed=2).double()
    names = {id(p): name for name, p in student.named_parameters()}
    # Every table of weights but one of biases, such as MPNet's of relative positions.
    tables = [m.weight for m in student.modules() if isinstance(m, (nn.Linear, nn.Embedding, nn.Conv1d, Conv1D))]
    decayed = {id(weight) for weight in tables if "bias" not in names[id(weight)]}
    optimiser = torch.optim.AdamW(
        [
            {"params": [p for p in student.parameters() if id(p) in decayed], "weight_decay": weight_decay},
            {"params": [p for p in student.parameters() if id(p) not in decayed], "weight_decay": 0.0},
        ],
        lr=learning_rate,
    )
    with torch.no_grad():
        target = teacher(**batch, output_hidden_states=True)
    tokens = batch["attention_mask"].bool()
    for factor in factors:
        losses = []
        for spec in chosen:
            weights = dict(student.named_parameters())
            for linear, kept in columns_of(family, student, family.fit(spec)):
                mask = torch.zeros_like(linear.weight)
                (mask.T if isinstance(linear, Conv1D) else mask)[:, :kept] = 1
                weights[names[id(linear.weight)]] = linear.weight * mask
            output = functional_call(student, weights, (), {**batch, "output_hidden_states": True})
            # Single precision here as in the loss: what a rounding changes in it, AdamW would make large.
            soft = F.cross_entropy(output.logits.float(), target.logits.float().softmax(-1))
            pairs = zip(states_of(family, output), states_of(family, target), strict=True)
            hidden = torch.stack([F.mse_loss(s[tokens], t[tokens]) for s, t in pairs]).mean()
            losses.append((soft + hidden) / 2)
        optimiser.zero_grad()
        (sum(losses) / len(losses)).backward()
        nn.utils.clip_grad_norm_(student.parameters(), clip)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * factor
        optimiser.step()
    return student.state_dict()


def assert_training_is_the_references(tmp_path, family, rule, chosen):
    lengths = (9, 4, 12, 7, 7, 5)
    trainer = trainer_for(
        tmp_path,
        family,
        rows=lengths,
        double=True,
        batch_size=len(lengths),
        epochs=4,
        warmup=0.5,
        weight_decay=0.1,
        max_grad_norm=0.5,
        candidates_per_step=rule,
    )
    trainer.fit()
    assert trainer.state.global_step == 4
    batch = as_batch(training_rows(family, lengths))
    # Linear rise over two steps, linear fall over the other two.
    expected = reference(family, batch, chosen, (0, 0.5, 1, 0.5), 1e-3, 0.1, 0.5)
    start = family.model(seed=1).double().state_dict()
    for name, value in trainer.model.state_dict().items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
        # No gradient reaches the bias of a key, and no weight decay either.
        still = "k" in name.split(".")[-2] or name.endswith(family.still)
        assert still or (value - start[name]).abs().max() > 1e-5


def test_training_is_plain_adamw_on_the_mean_loss(family, tmp_path):
    assert_training_is_the_references(tmp_path, family, "all", CANDIDATES)


@pytest.mark.parametrize("launched", ["bf16", "fp16"])
def test_the_launchers_precision_is_not_the_runs(tmp_path, monkeypatch, launched):
    def train(name):
        trainer = trainer_for(tmp_path / name, precision="fp32", max_steps=2)
        trainer.fit()
        return trainer.model.state_dict()

    alone = train("alone")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched)
    assert_same(train("launched"), alone)


def test_candidates_that_are_not_drawn_have_no_part_in_a_step(tmp_path):
    assert_training_is_the_references(tmp_path, BERT, "largest+smallest+0", [SMALL, LARGE])


def test_flops_are_of_rows_as_they_are_however_a_step_pads_them(tmp_path):
    trainer = trainer_for(tmp_path)
    batch = as_batch(training_rows(BERT, (9, 4, 12)))
    wide = {name: F.pad(value, (0, 4)) for name, value in batch.items()}
    left = {name: F.pad(value, (4, 0)) for name, value in batch.items()}
    found = trainer.floating_point_ops(batch)
    assert found > 0
    assert trainer.floating_point_ops(wide) == trainer.floating_point_ops(left) == found


def test_nobody_listens_to_the_networks_once_they_are_trained(tmp_path):
    trainer = trainer_for(tmp_path, loss="minilm", epochs=1)
    models = trainer.model, trainer.teachers[0]

    def listened_to():
        return [any(part._forward_hooks for part in model.modules()) for model in models]

    assert listened_to() == [True, True]
    trainer.fit()
    assert listened_to() == [False, False]


@pytest.mark.parametrize(("asked", "recorded"), [("auto", True), ("off", False)])
def test_whether_steps_may_be_recorded(tmp_path, asked, recorded):
    assert trainer_for(tmp_path, cuda_graphs=asked).args.recorded is recorded


def test_the_teacher_does_not_change(tmp_path):
    trainer = trainer_for(tmp_path, epochs=2)
    (teacher,) = trainer.teachers
    before = copy.deepcopy(teacher.state_dict())
    trainer.fit()
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert not teacher.training
    assert all(p.grad is None for p in teacher.parameters())


def test_the_loss_against_two_teachers_is_the_mean_of_the_losses_against_each(tmp_path):
    batch = as_batch(training_rows(BERT, (9, 4, 12)))
    results = []
    for teachers in ([2], [3], [2, 3]):
        trainer = trainer_for(tmp_path, teachers=teachers, double=True)
        trainer.current_gradient_accumulation_steps = 1
        loss = trainer.train_batch(trainer.model, dict(batch)).item()
        results.append((loss, {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}))
    (one, one_grad), (other, other_grad), (both, both_grad) = results
    assert one != other
    assert both == pytest.approx((one + other) / 2, rel=1e-6)
    for name, grad in both_grad.items():
        torch.testing.assert_close(grad, (one_grad[name] + other_grad[name]) / 2, atol=1e-6, rtol=0)


def test_a_student_of_fewer_layers_is_compared_after_as_large_a_part_of_the_teachers(tmp_path):
    whole = SubnetworkSpec(0.5, (HEADS,) * LAYERS, (NEURONS,) * LAYERS)
    trainer = trainer_for(tmp_path, teacher_layers=2 * LAYERS, candidates=[whole])
    trainer.current_gradient_accumulation_steps = 1
    batch = as_batch(training_rows(BERT, (9, 4, 12)))
    found = trainer.train_batch(trainer.model, dict(batch)).item()
    # By hand, and by plain transformers: after every layer of the student two of the teacher's.
    tokens = batch["attention_mask"].bool()
    with torch.no_grad():
        student = BERT.model(seed=1)(**batch, output_hidden_states=True)
        teacher = BERT.model(seed=2, num_hidden_layers=2 * LAYERS)(**batch, output_hidden_states=True)
        pairs = zip(student.hidden_states, teacher.hidden_states[::2], strict=True)
        hidden = torch.stack([F.mse_loss(s[tokens], t[tokens]) for s, t in pairs]).mean()
        soft = F.cross_entropy(student.logits, teacher.logits.softmax(-1))
    assert found == pytest.approx(((soft + hidden) / 2).item(), rel=1e-5)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_passes_are_in_the_precision_that_is_asked_for_and_weights_in_single(tmp_path, precision, dtype, stored):
    stores = [OutputStore(tmp_path / "outputs" / "one", 1e9)] if stored else []
    trainer, seen = trainer_for(tmp_path / "run", precision=precision, epochs=1, stores=stores), []
    trained, (teacher,) = trainer.model, trainer.teachers

    def note(module, inputs, output):
        # Evaluations are no part of it.
        if torch.is_grad_enabled() or module is BERT.ffn_downs(teacher)[0]:
            seen.append((module, output.dtype))

    for model in (trained, teacher):
        BERT.ffn_downs(model)[0].register_forward_hook(note)
    trainer.fit()
    assert set(seen) == {(BERT.ffn_downs(model)[0], dtype) for model in (trained, teacher)}
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    (checkpoint,) = tmp_path.glob("run/checkpoint-*")
    assert {value.dtype for value in load_file(checkpoint / "model.safetensors").values()} == {torch.float32}


@pytest.mark.parametrize("row", [BERT, LLAMA, T5])
def test_losses_compare_in_single_precision_what_is_computed_in_half(tmp_path, row):
    trainer = trainer_for(tmp_path, row, precision="bf16")
    trainer.current_gradient_accumulation_steps = 1
    compared, plain = [], trainer._loss
    trainer._loss = lambda *args: compared.extend(args[:2]) or plain(*args)
    assert torch.isfinite(trainer.train_batch(trainer.model, as_batch(training_rows(row, (9, 4, 12)))))
    assert {value.dtype for outputs in compared for value in (outputs.logits, *outputs.states)} == {torch.float32}


def without_cache(model):
    """Keys from a cache lie in another order in memory, and some processors round them otherwise."""
    for part in model.modules():
        if hasattr(part, "config"):
            part.config.use_cache = False


@pytest.mark.parametrize(("row", "at_last"), [(BERT, False), (LLAMA, True), (T5, True)])
def test_pkd_compares_the_token_that_the_label_is_read_from(tmp_path, row, at_last):
    trainer = trainer_for(tmp_path, row, loss="pkd")
    trainer.current_gradient_accumulation_steps = 1
    truths, loss = [], trainer._loss
    trainer._loss = lambda *args: truths.append(args[2]) or loss(*args)
    rows = training_rows(row, (9, 4, 12))
    trainer.train_batch(trainer.model, {**as_batch(rows), "labels": torch.tensor(rows["label"])})
    assert {truth.at_last for truth in truths} == {at_last}


def test_labels_are_of_the_outputs_that_stand_for_the_datas_classes(tmp_path):
    whole = SubnetworkSpec(0.5, (HEADS,) * LAYERS, (NEURONS,) * LAYERS)
    trainer = trainer_for(tmp_path, candidates=[whole], loss="labels", outputs=[1, 0])
    trainer.current_gradient_accumulation_steps = 1
    rows = training_rows(BERT, (9, 4, 12))
    batch, labels = as_batch(rows), torch.tensor(rows["label"])
    found = trainer.train_batch(trainer.model, {**batch, "labels": labels}).item()
    with torch.no_grad():
        logits = BERT.model(seed=1)(**batch).logits
    assert found == pytest.approx(F.cross_entropy(logits, 1 - labels).item(), rel=1e-5)


@pytest.mark.parametrize("loss", ["hidden+logits", "minilm"])
def test_checkpointing_changes_no_gradient(tmp_path, family, loss):
    ends = []
    for on in (False, True):
        trainer = trainer_for(tmp_path, family, dropout=0.3, loss=loss)
        without_cache(trainer.model)
        trainer.current_gradient_accumulation_steps = 1
        torch.manual_seed(4)
        with checkpointed(trainer.model, architecture_for(family.family), on):
            trainer.train_batch(trainer.model, as_batch(training_rows(family, (9, 4, 12))))
        ends.append({name: p.grad for name, p in trainer.model.named_parameters()})
    assert any(gradient is not None and gradient.any() for gradient in ends[0].values())
    for name, gradient in ends[0].items():
        assert torch.equal(ends[1][name], gradient) if gradient is not None else ends[1][name] is None, name


@pytest.mark.parametrize("row", [BERT, T5], ids=lambda row: row.name)
def test_checkpointing_changes_no_weight(tmp_path, row):
    ends, runs = [], {False: 0, True: 0}
    for on in (False, True):
        trainer = trainer_for(tmp_path / str(on), row, gradient_checkpointing=on, dropout=0.3, epochs=1)
        without_cache(trainer.model)

        def count(*_, on=on):
            runs[on] += torch.is_grad_enabled()

        attrgetter(row.projections[0])(row.layers_of(trainer.model)[-1]).register_forward_hook(count)
        trainer.fit()
        ends.append(trainer.model.state_dict())
    # In each of two steps, for each candidate: once, and again in the backward pass.
    assert runs == {False: 2 * len(CANDIDATES), True: 2 * 2 * len(CANDIDATES)}
    start = row.model(seed=1).state_dict()
    for name, value in ends[0].items():
        assert torch.equal(ends[1][name], value), name
    assert any(not torch.equal(value, start[name]) for name, value in ends[0].items())


def test_adafactor_keeps_rows_and_columns_alone(tmp_path):
    kept = []

    def progress(step, total, loss, metrics):
        if loss is not None:
            state = trainer.optimizer.optimizer.state
            kept.append(sum(v.numel() for one in state.values() for v in one.values() if torch.is_tensor(v)))

    trainer = trainer_for(tmp_path, optimizer="adafactor", progress=progress)
    before = copy.deepcopy(trainer.model.state_dict())
    trainer.fit()
    learnt = [p for p in trainer.model.parameters() if p.requires_grad]
    sides = sum(sum(p.shape) if p.dim() > 1 else p.numel() for p in learnt)
    assert 0 < kept[-1] <= sides + len(learnt)
    assert any(not torch.equal(before[name], value) for name, value in trainer.model.state_dict().items())


def test_what_only_training_needs_is_dropped_after_it(tmp_path):
    trainer = trainer_for(tmp_path)
    trainer.fit()
    assert trainer.optimizer is None
    assert all(p.grad is None for p in trainer.model.parameters())


@pytest.mark.parametrize("engine", ["fsdp", "deepspeed"])
@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
def test_a_model_is_on_its_device_before_and_after_an_engine_has_it(tmp_path, monkeypatch, engine):
    """The device is one that computes nothing, and a finished stage is found, so that nothing has to be computed."""
    trainer_for(tmp_path, max_steps=1).fit()
    accelerate = Trainer.create_accelerator_and_postprocess

    def with_engine(trainer):
        accelerate(trainer)
        setattr(trainer, f"is_{engine}_enabled", True)

    def devices(model):
        # Buffers that are in no file as well: BERT's positions.
        return {tensor.device.type for tensor in (*model.parameters(), *model.buffers())}

    monkeypatch.setattr(Trainer, "create_accelerator_and_postprocess", with_engine)
    monkeypatch.setattr(ResumableArguments, "device", torch.device("meta"))
    trainer = trainer_for(tmp_path, max_steps=1)
    assert devices(trainer.model) == {"meta"}
    trainer.fit()
    assert devices(trainer.model) == {"meta"}


def test_embeddings_can_be_kept(family, tmp_path):
    ends = []
    for train in (True, False):
        trainer = trainer_for(tmp_path / str(train), family, train_embeddings=train)
        before = copy.deepcopy(trainer.model.state_dict())
        trainer.current_gradient_accumulation_steps = 1
        trainer.train_batch(trainer.model, as_batch(training_rows(family, (9, 4, 12))))
        trainer.create_optimizer().step()
        after = trainer.model.state_dict()
        ends.append({name for name, value in after.items() if not torch.equal(value, before[name])})
    trained, kept = ends
    assert trained - kept
    # By all their names: T5's encoder and decoder share them.
    own = {id(p) for module in family.embedding_modules(trainer.model) for p in module.parameters()}
    names = {name for name, weight in trainer.model.state_dict(keep_vars=True).items() if id(weight) in own}
    assert trained - kept <= names
    assert kept and not kept & names


def test_weights_with_several_names_are_kept_once(tmp_path):
    trainer = trainer_for(tmp_path, T5, epochs=2)
    trainer.fit()
    end = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    names = {name for name, _ in trainer.model.named_parameters()}
    for file in [*tmp_path.glob("snapshot-*"), *tmp_path.glob("checkpoint-*/model.safetensors")]:
        assert load_file(file).keys() == names < end.keys()
    assert trainer.best_state(0).keys() == end.keys()
    again = trainer_for(tmp_path, T5, epochs=2)
    again.fit()
    assert again.history == trainer.history
    assert all(torch.equal(value, end[name]) for name, value in again.model.state_dict().items())


def test_only_the_largest_candidates_prefix_learns(tmp_path):
    trainer = trainer_for(tmp_path, epochs=2, weight_decay=0.0)
    before = copy.deepcopy(trainer.model.state_dict())
    trainer.fit()
    after = trainer.model.state_dict()
    for linear, kept in columns_of(BERT, trainer.model, LARGE):
        (name,) = [n for n, p in trainer.model.named_parameters() if p is linear.weight]
        assert torch.equal(after[name][:, kept:], before[name][:, kept:])
        assert not torch.equal(after[name][:, :kept], before[name][:, :kept])


@pytest.mark.parametrize(
    ("rows", "size"),
    # The last update of an epoch has one batch only; one batch has most of the tokens; one has one row.
    [((8,) * 10, 2), ((12, 11, 10, 9, 3, 3, 3, 3), 4), ((8,) * 5, 4)],
)
def test_accumulated_batches_are_one_large_batch(tmp_path, rows, size):
    weights = []
    for name, batch_size, steps in (("whole", 2 * size, 1), ("parts", size, 2)):
        trainer = trainer_for(
            tmp_path / name,
            rows=rows,
            double=True,
            epochs=3,
            batch_size=batch_size,
            gradient_accumulation_steps=steps,
            candidates_per_step="largest+smallest+1",
            optim="sgd",
            learning_rate=0.1,
        )
        trainer.fit()
        assert trainer.state.global_step == 3 * math.ceil(len(rows) / (2 * size))
        weights.append(trainer.model.state_dict())
    start = BERT.model(seed=1).state_dict()
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, atol=1e-6, rtol=0)
    assert (weights[0]["classifier.weight"] - start["classifier.weight"]).abs().max() > 1e-3


def regression_rows():
    rows = training_rows(BERT, (8,) * 5)
    return rows.remove_columns("label").add_column("label", [-1.5, 0.5, 2.0, -0.5, 3.0])


@pytest.mark.parametrize(
    ("model", "rows"),
    [
        (BERT.model, training_rows(BERT, (8,) * 5)),
        (partial(BERT.model, num_labels=1), regression_rows()),
        (partial(BERT.token_model, num_labels=3), tagged_rows(BERT, [4, 4, 4, 3, 1, 1, 1])),
    ],
    ids=["classification", "regression", "token-classification"],
)
def test_accumulated_batches_of_fine_tuning_are_one_large_batch(tmp_path, model, rows):
    weights = []
    for size, steps in ((8, 1), (4, 2)):
        settings = TrainingSettings(
            device="cpu", learning_rate=0.1, warmup=0.0, batch_size=size, gradient_accumulation_steps=steps, epochs=3
        )
        arguments = ResumableArguments(**{**trainer_arguments(settings, tmp_path / str(size)), "optim": "sgd"})
        trainer = _FinetuneTrainer(model(seed=1).double(), arguments, rows, tiny_tokenizer(), ["teacher"])
        trainer.score = lambda: [{"metric": 0.0}]
        trainer.fit()
        assert trainer.state.global_step == 3
        weights.append(trainer.model.state_dict())
    start = model(seed=1).state_dict()
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, atol=1e-6, rtol=0)
    assert (weights[0]["classifier.weight"] - start["classifier.weight"]).abs().max() > 1e-3


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_dropout_is_the_trainers_own_and_drawn_from_the_step(tmp_path, family, dropout):
    trainer = trainer_for(tmp_path, family, student_dropout=0.5, dropout=dropout)
    batch = as_batch(training_rows(family, (9,) * 8))
    trainer.current_gradient_accumulation_steps = 1
    losses = []
    for step in (1, 2, 1):
        trainer.state.global_step = step
        losses.append(trainer.training_step(trainer.model, dict(batch)).item())
    assert losses[0] == losses[2]
    assert (losses[0] == losses[1]) == (dropout == 0)
    if dropout == 0:
        with torch.no_grad():
            expected = family.model(seed=1)(**batch).logits
            torch.testing.assert_close(trainer.model.train()(**batch).logits, expected, atol=1e-5, rtol=0)


def test_dropout_differs_between_accumulated_batches(tmp_path):
    trainer = trainer_for(tmp_path, dropout=0.3)
    batch = as_batch(training_rows(BERT, (9,) * 8))
    trainer.current_gradient_accumulation_steps = 2
    losses = [trainer.training_step(trainer.model, dict(batch)).item() for _ in range(2)]
    assert losses[0] != losses[1]


# Scores.


@pytest.mark.parametrize("outputs", [[0, 1], [1, 0]])
def test_candidates_are_scored_row_by_row(tmp_path, family, outputs):
    task = Recorder()
    trainer = trainer_for(tmp_path, family, task=task, outputs=outputs)
    assert trainer.score() == [{"metric": 0.5}] * 3
    rows = training_rows(family, [5, 9, 3, 12, 7, 7], seed=3)
    for spec, (logits, labels) in zip(CANDIDATES, task.asked, strict=True):
        dense = extract(family.model(seed=1), family.fit(spec))
        with torch.no_grad():
            alone = torch.cat([dense(**as_batch(rows.select([i]))).logits for i in range(len(rows))])
        np.testing.assert_allclose(logits, alone.numpy()[:, outputs], atol=1e-5)
        assert labels.tolist() == rows["label"][:]


class Scripted:
    """A task whose metrics are given; notes the weights that were evaluated."""

    def __init__(self, *scripts):
        self.scripts = scripts
        self.weights = []
        self.calls = 0
        self.trainer = None

    def evaluate(self, logits, labels):
        evaluation, network = divmod(self.calls, len(self.scripts))
        self.calls += 1
        if network == 0:
            self.weights.append(copy.deepcopy(self.trainer.model.state_dict()))
        return {"metric": self.scripts[network][evaluation], "other": 10 * evaluation + network}


def scripted(tmp_path, *scripts, **changes):
    task = Scripted(*scripts)
    task.trainer = trainer_for(tmp_path, task=task, candidates=CANDIDATES[: len(scripts)], batch_size=8, **changes)
    task.trainer.fit()
    return task, task.trainer


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_each_network_keeps_its_best_metric_with_its_weights(tmp_path):
    scripts = [0.1, 0.5, 0.5, 0.4, 0.1, 0.0], [0.2, 0.2, 0.3, 0.6, 0.5, 0.5], [0.9, 0.2, 0.3, 0.8, 0.1, 0.8]
    task, trainer = scripted(tmp_path, *scripts, epochs=5)
    assert [(b.step, b.metrics) for b in trainer.best] == [
        (1, {"metric": 0.5, "other": 10}),
        (3, {"metric": 0.6, "other": 31}),
        (0, {"metric": 0.9, "other": 2}),
    ]
    for network, evaluation in enumerate((1, 3, 0)):
        assert_same(trainer.best_state(network), task.weights[evaluation])
    assert_same(trainer.model.state_dict(), task.weights[5])
    assert not torch.equal(task.weights[1]["classifier.weight"], task.weights[3]["classifier.weight"])
    names = [spec.name for spec in CANDIDATES]
    assert [entry["step"] for entry in trainer.history] == [0, 1, 2, 3, 4, 5]
    assert [entry["metrics"][names[1]]["metric"] for entry in trainer.history] == scripts[1]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_predictions_of_each_networks_best_weights(tmp_path, monkeypatch, precision):
    # Two networks were best at the same step.
    scripts = [0.1, 0.5, 0.2, 0.4], [0.9, 0.2, 0.3, 0.1], [0.1, 0.6, 0.1, 0.2]
    task, trainer = scripted(tmp_path, *scripts, epochs=3, precision=precision)
    before = copy.deepcopy(trainer.model.state_dict())
    found = trainer.best_logits(CANDIDATES)
    assert_same(trainer.model.state_dict(), before)
    assert task.calls == 12  # nothing was scored again
    rows = training_rows(BERT, [5, 9, 3, 12, 7, 7], seed=3)
    assert trainer.selection_labels().tolist() == rows["label"][:]
    for spec, logits, evaluation in zip(CANDIDATES, found, (1, 0, 1), strict=True):
        dense = extract(BERT.model(), spec, task.weights[evaluation])
        with torch.no_grad():
            alone = torch.cat([dense(**as_batch(rows.select([i]))).logits for i in range(len(rows))])
        np.testing.assert_allclose(logits, alone.numpy(), atol=1e-5)
    (one,) = trainer.best_logits(CANDIDATES[2:])
    np.testing.assert_array_equal(one, found[2])
    # The same after the training was found finished on disk, to the last bit; only then they are predicted anew.
    again = trainer_for(tmp_path, task=task, batch_size=8, epochs=3, precision=precision)
    again.fit()
    np.testing.assert_array_equal(again.best_logits(CANDIDATES), found)
    monkeypatch.setattr("minidisc.trainer.predict_subnetworks", None)
    np.testing.assert_array_equal(trainer.best_logits(CANDIDATES), found)
    with pytest.raises(TypeError):
        again.best_logits(CANDIDATES)


def test_predicting_leaves_no_trace_in_what_is_trained_after_it(tmp_path):
    ends = []
    for look in (True, False):
        # Looked at in the middle of a training, after every step.
        trainer = trainer_for(tmp_path / str(look), epochs=4, batch_size=8, dropout=0.2)

        def progress(step, total, loss, metrics, trainer=trainer, look=look):
            if look and metrics is None:
                trainer._best_logits.clear()
                assert len(trainer.best_logits(CANDIDATES)) == 3

        trainer._progress = progress
        trainer.fit()
        ends.append(trainer.model.state_dict())
    assert_same(*ends)


def test_metrics_below_zero_are_kept_too(tmp_path):
    task, trainer = scripted(tmp_path, [-0.5, -0.1, -0.3], epochs=2)
    assert (trainer.best[0].step, trainer.best[0].metrics["metric"]) == (1, -0.1)
    assert_same(trainer.best_state(0), task.weights[1])


def test_a_network_that_is_no_better_than_untrained_is_trained_all_the_same(tmp_path):
    task, trainer = scripted(tmp_path, [0.5, 0.5, 0.5, 0.4], [0.5, 0.4, 0.4, 0.4], epochs=3, patience=2)
    assert [best.step for best in trainer.best] == [1, 0]
    assert_same(trainer.best_state(0), task.weights[1])
    # Which is no gain: nothing was better at steps 1 and 2.
    assert trainer.state.global_step == 2


@pytest.mark.parametrize(
    ("patience", "stopped"),
    # No network gains at steps 2, 4, 5 and 6.
    [(1, 2), (2, 5), (3, 6), (4, 8)],
)
def test_training_stops_when_no_network_gains_for_long(tmp_path, patience, stopped):
    scripts = [0.1, 0.5, 0.5, 0.4, 0.1, 0.0, 0.0, 0.6, 0.1], [0.2, 0.2, 0.1, 0.6, 0.6, 0.5, 0.6, 0.5, 0.4]
    _, trainer = scripted(tmp_path, *scripts, epochs=8, patience=patience)
    assert trainer.state.global_step == stopped
    assert trainer.history[-1]["step"] == stopped
    assert trainer.cost.steps == stopped


@pytest.mark.parametrize(("often", "steps"), [(2, [0, 2, 4]), (9, [0, 1, 2, 3, 4])])
def test_evaluations_in_an_epoch(tmp_path, often, steps):
    trainer = trainer_for(tmp_path, task=Recorder(), batch_size=2, epochs=1, evaluations_per_epoch=often, patience=99)
    trainer.fit()
    assert [entry["step"] for entry in trainer.history] == steps


@pytest.mark.parametrize(
    ("max_steps", "steps"),
    [(1, [0, 1]), (3, [0, 3]), (5, [0, 3, 5]), (6, [0, 3, 6]), (7, [0, 3, 7]), (8, [0, 3, 6, 8])],
)
def test_the_last_step_is_evaluated_and_no_step_shortly_before_it(tmp_path, max_steps, steps):
    trainer = trainer_for(tmp_path, batch_size=3, max_steps=max_steps, patience=99)
    trainer.fit()
    assert [entry["step"] for entry in trainer.history] == steps


def test_progress(tmp_path):
    calls = []
    trainer = trainer_for(tmp_path, epochs=1, progress=lambda *values: calls.append(values))
    trainer.fit()
    assert [(step, total, loss is None) for step, total, loss, _ in calls[1:]] == [
        (1, 2, False),
        (2, 2, False),
        (2, 2, True),
    ]
    assert math.isfinite(calls[1][2])
    assert set(calls[-1][3]) == {"50 %", "70 %", "90 %"}


def test_of_candidates_with_as_many_neurons_the_one_with_more_heads_is_larger(tmp_path):
    """The last pass of a step is the widest: that is where FSDP sends gradients."""
    small, large = SubnetworkSpec(0.7, (1, 2, 1), (20, 12, 8)), SubnetworkSpec(0.6, (2, 2, 1), (20, 12, 8))
    for name, candidates in (("one", [small, large]), ("other", [large, small])):
        trainer = trainer_for(tmp_path / name, candidates=candidates)
        assert trainer.step_candidates(0) == [small, large]


def test_the_loss_of_a_step_is_that_of_all_its_rows(tmp_path):
    def losses(name, **changes):
        told = []
        rows = (12, 3, 5, 9, 2, 7, 4, 11)
        progress = lambda *values: told.append(values[2])  # noqa: E731
        trainer = trainer_for(tmp_path / name, rows=rows, progress=progress, epochs=1, **changes)
        trainer.fit()
        return [loss.item() for loss in told if loss is not None]

    whole = losses("whole", batch_size=4)
    assert len(whole) == 2
    assert losses("halves", batch_size=2, gradient_accumulation_steps=2) == pytest.approx(whole, rel=1e-4)


def test_cost(tmp_path):
    trainer = trainer_for(tmp_path, rows=(9,) * 8, epochs=2)
    trainer.fit()
    shape = Shape.of(BERT.model(), architecture_for("bert"))
    full = SubnetworkSpec(0.0, (4,) * 3, (48,) * 3)
    # Per batch of 4: the teacher forward, and three candidates forward and, twice as dear, backward.
    batch = shape.forward_flops(full, 4, 9) + 3 * sum(shape.forward_flops(c, 4, 9) for c in CANDIDATES)
    assert trainer.cost.flops == pytest.approx(4 * batch)
    assert trainer.cost.steps == 4
    assert trainer.cost.cpu_seconds > 0
    assert trainer.cost.seconds > 0
