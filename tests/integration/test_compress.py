"""The main job on a tiny teacher: what the run folder holds, and what each option does."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback

import minidisc
from minidisc.errors import UserError
from minidisc.extraction import extract, save_small
from minidisc.memory import is_freed
from minidisc.preparation import Preparation
from minidisc.selection import lambda_sweeps, range_of
from minidisc.subnetworks import SubnetworkSpec
from minidisc.tasks import read_table
from minidisc.teachers import from_pretrained
from minidisc.trainer import SandwichTrainer
from tests.integration import tiny


@pytest.fixture(scope="module")
def run(workplace, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        tiny.end_briefly(patch.setattr, measured=True)
        return minidisc.compress(**tiny.settings(workplace, tmp_path_factory.mktemp("runs") / "run"))


def test_the_run_folder_keeps_its_contract(run):
    names = {path.name for path in run.output_dir.iterdir()}
    expected = {"run.yaml", "importance.safetensors", "candidates.json", "student", "results.json", "report.html"}
    assert expected <= names
    assert not names & {"checkpoints", ".lock"}
    assert ("assistant" in names) == bool(run.assistants)
    scores = load_file(run.output_dir / "importance.safetensors")
    assert scores["heads"].shape == (3, 4)
    assert scores["neurons"].shape == (3, 64)


def test_reported_metrics_are_what_the_saved_models_score(run, workplace):
    assert run.teacher.metrics["accuracy"] == pytest.approx(tiny.accuracy(workplace / "teacher", workplace))
    for model in [*run.assistants, run.student]:
        assert model.metrics["accuracy"] == pytest.approx(tiny.accuracy(model.path, workplace))
    assert run.teacher.metrics["accuracy"] > 0.8


def test_reported_sizes_are_those_of_the_saved_models(run):
    for model in [*run.assistants, run.student]:
        tensors = load_file(model.path / "model.safetensors")
        assert model.sizes.all == sum(t.numel() for t in tensors.values())
        embeddings = sum(t.numel() for name, t in tensors.items() if ".embeddings." in name)
        assert model.sizes.without_embeddings == model.sizes.all - embeddings
        assert (model.path / "model.safetensors").stat().st_size < 4 * model.sizes.all + 32_000


def test_every_saved_model_has_a_card(run):
    for model in [*run.assistants, run.student]:
        card = ModelCard.load(model.path / "README.md")
        (found,) = card.data.eval_results
        assert found.metric_value == pytest.approx(model.metrics["accuracy"], abs=1e-6)
        assert f"{model.metrics['accuracy']:.4f}" in card.text
        assert "60 validation rows (validation.csv)" in card.text


def test_the_table_holds_every_candidate_and_the_choice_follows_from_it(run):
    rows = json.loads((run.output_dir / "candidates.json").read_text())
    assert [row["sparsity"] for row in rows] == [0.25, 0.5, 0.75]
    for row in rows:
        assert row["tradeoff"] == pytest.approx(row["metric"] + 0.2 * row["sparsity"])
    best = max(rows, key=lambda row: (row["tradeoff"], row["sparsity"]))
    chosen = [row["sparsity"] for row in rows if row["chosen"]]
    assert chosen == ([best["sparsity"]] if best["sparsity"] < 0.75 else [])
    assert chosen == [assistant.sparsity for assistant in run.assistants]


def test_the_table_says_how_sure_the_choice_is(run):
    rows = json.loads((run.output_dir / "candidates.json").read_text())
    assert sum(row["probability"] for row in rows) == pytest.approx(1)
    for row in rows:
        low, high = row["interval"]
        assert 0 <= low <= row["metric"] <= high <= 1
    best = max(rows, key=lambda row: (row["tradeoff"], row["sparsity"]))
    toss = [line for line in run.results["warnings"] if "coin toss" in line]
    assert len(toss) == (best["probability"] < 0.495)
    assert all(line in run.report.read_text() for line in toss)
    (sweep,) = lambda_sweeps(rows)
    assert run.results["lambda_sweep"] == [[part._asdict() for part in sweep]]
    assert range_of(sweep, 0.2).sparsity == best["sparsity"]


def test_student_keeps_labels_and_its_narrow_layers(run):
    config = json.loads((run.student.path / "config.json").read_text())
    assert config["id2label"] == {"0": "contra", "1": "pro"}
    target = run.candidates[-1]
    assert config["heads_per_layer"] == target["heads"]
    assert config["neurons_per_layer"] == target["neurons"]
    assert sum(target["heads"]) == 3
    assert sum(target["neurons"]) == 48


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ({"schedule": "direct"}, ["student"]),
        ({"schedule": "direct", "loss": "minilm"}, ["student"]),
        ({"schedule": "finetune", "student": "layers"}, ["student"]),
        ({"schedule": "chain", "assistants": (0.25, 0.5)}, ["assistant-25", "assistant-25-50", "student-via-25-50"]),
        (
            {"schedule": "maxidisc"},
            ["assistant-25", "student-via-25", "assistant-50", "student-via-50"],
        ),
        ({"stages": 1}, ["sandwich-1"]),
        ({"second_stage": "sandwich", "tradeoff_lambda": 0.0}, None),
        ({"stages": 3, "tradeoff_lambda": 0.0}, None),
        ({"candidates_per_step": "all", "gradient_accumulation_steps": 2, "batch_size": 8}, None),
        ({"select_on": "validation"}, None),
        ({"second_importance": "assistant", "assistants": (0.5,)}, ["sandwich-1", "importance of 50 %", "student"]),
    ],
)
def test_schedules_and_options(workplace, tmp_path, changes, stages):
    result = minidisc.compress(**tiny.settings(workplace, tmp_path / "run", epochs=1, **changes))
    assert result.student.metrics["accuracy"] == pytest.approx(tiny.accuracy(result.student.path, workplace))
    costs = result.results["cost"]["stages"]
    if stages:
        assert [name for name in costs if name != "importance"] == stages
    for name, cost in costs.items():
        assert cost["flops"] > 0
        if not name.startswith("importance"):
            assert cost["steps"] == (10 if changes.get("select_on") else 8)
    if changes.get("stages") == 3:
        sparsities = [assistant.sparsity for assistant in result.assistants]
        assert sparsities == sorted(sparsities)


@pytest.mark.parametrize(
    ("changes", "stored"),
    [
        ({}, ["outputs of teacher", "outputs of 25 %"]),
        ({"loss": "labels"}, []),
        ({"teacher_cache": 0}, []),
        # 128 rows of at most 16 tokens, 4 states of 32 numbers: more than 0.0001 GiB.
        ({"teacher_cache": 0.0001}, []),
        ({"epochs": 1}, []),
    ],
)
def test_teachers_outputs_are_kept_where_they_are_read_again(workplace, tmp_path, changes, stored):
    chain = {"schedule": "chain", "assistants": (0.25,), "epochs": 2}
    result = minidisc.compress(**tiny.settings(workplace, tmp_path / "run", **{**chain, **changes}))
    costs = result.results["cost"]["stages"]
    assert [name for name in costs if name.startswith("outputs")] == stored
    assert all(costs[name]["flops"] > 0 and costs[name]["steps"] == 0 for name in stored)
    assert "Outputs of teacher" in (result.output_dir / "report.html").read_text() or not stored


def test_one_teachers_outputs_may_make_room_for_anothers(workplace, tmp_path):
    changes = {"second_teacher": "both", "assistants": (0.25,), "keep_checkpoints": True}
    room = minidisc.compress(**tiny.settings(workplace, tmp_path / "room", **changes))
    one, other = (file.stat().st_size for file in (room.output_dir / "checkpoints" / "outputs").glob("*/states"))
    assert one == other
    changes["teacher_cache"] = 1.5 * one / 2**30
    tight = minidisc.compress(**tiny.settings(workplace, tmp_path / "tight", **changes))
    assert tiny.weights(tight.output_dir) == tiny.weights(room.output_dir)


def test_padding_on_the_left_lets_teachers_run_at_every_step(workplace, tmp_path):
    # The same row has its tokens at other positions in every batch.
    shutil.copytree(workplace / "teacher", tmp_path / "teacher")
    tokenizer = AutoTokenizer.from_pretrained(workplace / "teacher", padding_side="left")
    tokenizer.save_pretrained(tmp_path / "teacher")
    settings = tiny.settings(workplace, tmp_path / "run", schedule="direct", epochs=2)
    result = minidisc.compress(**{**settings, "teacher": str(tmp_path / "teacher")})
    assert list(result.results["cost"]["stages"]) == ["importance", "student"]


def assert_the_most_important_quarter(student, teacher, importance):
    """That weights are of the teacher's heads and neurons with the largest scores, whichever layers have them."""
    for kind, size, into, out_of in (
        ("heads", 8, "attention.self.query", "attention.output.dense"),
        ("neurons", 1, "intermediate.dense", "output.dense"),
    ):
        own = importance[kind]
        least = own.flatten().sort(descending=True).values[own.numel() // 4 - 1]
        for number, row in enumerate(own):
            best = row.argsort(descending=True)[: int((row >= least).sum())].tolist()
            places = [size * place + i for place in best for i in range(size)]
            for part, kept in ((f"{into}.weight", (places,)), (f"{out_of}.weight", (slice(None), places))):
                name = f"bert.encoder.layer.{number}.{part}"
                expected = teacher[name][kept]
                torch.testing.assert_close(student.get(name, torch.empty(expected.shape)), expected, msg=name)


def test_importance_on_the_teachers_predictions_needs_no_labels(workplace, tmp_path):
    table = read_table(workplace / "train.csv")
    model = AutoModelForSequenceClassification.from_pretrained(workplace / "teacher").eval()
    tokenizer = AutoTokenizer.from_pretrained(workplace / "teacher")
    table.drop(columns="label").to_csv(tmp_path / "text.csv", index=False)
    # The student is what is cut out: no weight is changed by as little as that.
    changes = {"schedule": "direct", "importance_on": "teacher", "max_steps": 1, "learning_rate": 1e-12}
    settings = tiny.settings(workplace, tmp_path / "run", **changes)
    result = minidisc.compress(**{**settings, "train_file": str(tmp_path / "text.csv")})
    assert result.results["rows"]["calibration"]["count"] == len(table)
    # The definition by hand, in the same batches: cross-entropy on the larger logit's class.
    encoded = sorted(
        (tokenizer(text, truncation=True, max_length=16) for text in table["text"]), key=lambda e: -len(e["input_ids"])
    )
    layers = model.bert.encoder.layer
    downs = [*(layer.attention.output.dense for layer in layers), *(layer.output.dense for layer in layers)]
    sums = torch.zeros(6, 64)
    for start in range(0, len(encoded), 16):
        batch = tokenizer.pad(encoded[start : start + 16], return_tensors="pt")
        # The heads have 8 columns each.
        masks = [torch.ones(count, requires_grad=True) for count in (4, 4, 4, 64, 64, 64)]
        hooks = [
            down.register_forward_pre_hook(
                lambda _, args, mask=mask: (args[0] * mask.repeat_interleave(args[0].shape[-1] // len(mask)),)
            )
            for down, mask in zip(downs, masks, strict=True)
        ]
        logits = model(**batch).logits
        loss = torch.nn.functional.cross_entropy(logits, logits.detach().argmax(1))
        for total, gradient in zip(sums, torch.autograd.grad(loss, masks), strict=True):
            total[: len(gradient)] += gradient.abs()
        for hook in hooks:
            hook.remove()
    scores = sums / sums.norm(dim=1, keepdim=True)
    found = load_file(result.output_dir / "importance.safetensors")
    torch.testing.assert_close(found["heads"], scores[:3, :4], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found["neurons"], scores[3:], rtol=1e-4, atol=1e-6)
    student = load_file(result.student.path / "model.safetensors")
    assert_the_most_important_quarter(student, model.state_dict(), found)


def test_training_text_needs_no_labels(workplace, tmp_path):
    table = read_table(workplace / "train.csv").drop(columns="label")
    table.to_csv(tmp_path / "unlabelled.csv", index=False)
    result = minidisc.compress(
        **tiny.settings(workplace, tmp_path / "run", epochs=1, train_file=str(tmp_path / "unlabelled.csv"))
    )
    rows = result.results["rows"]
    assert rows["train"]["count"] == 160
    assert rows["selection"]["count"] + rows["validation"]["count"] == 60


def test_a_student_that_is_fine_tuned_keeps_its_code(workplace, tmp_path):
    from minidisc.config import FinetuneSettings
    from minidisc.finetuning import finetune

    student = extract(tiny.backbone(), SubnetworkSpec(0.5, (1, 2, 3), (5, 64, 0)))
    save_small(student, tiny.tokenizer(), tmp_path / "student")
    rows = {f"{name}_file": str(workplace / f"{name}.csv") for name in ("train", "validation")}
    folder = tmp_path / "tuned"
    finetune(
        FinetuneSettings(model=str(tmp_path / "student"), output_dir=str(folder), max_steps=2, device="cpu", **rows)
    )
    (code,) = folder.glob("*.py")
    assert code.read_text() == (tmp_path / "student" / code.name).read_text()
    tuned = from_pretrained(folder)
    assert type(tuned) is type(student)
    assert {name: value.shape for name, value in tuned.state_dict().items()} == {
        name: value.shape for name, value in student.state_dict().items()
    }
    assert "trust_remote_code=True" in (folder / "README.md").read_text()


@pytest.mark.usefixtures("measured")
def test_a_notebook_may_have_gradients_off(workplace, tmp_path):
    from minidisc.config import FinetuneSettings
    from minidisc.finetuning import finetune

    rows = {f"{name}_file": str(workplace / f"{name}.csv") for name in ("train", "validation")}
    settings = tiny.settings(workplace, "", schedule="direct", max_steps=2, keep_checkpoints=True, precision="fp32")
    for name in ("on", "off"):
        with torch.set_grad_enabled(name == "on"):
            tuned = tmp_path / f"tuned-{name}"
            model = str(workplace / "backbone")
            finetune(FinetuneSettings(model=model, output_dir=str(tuned), max_steps=1, device="cpu", **rows))
            minidisc.compress(**{**settings, "output_dir": str(tmp_path / name)})
            assert torch.is_grad_enabled() == (name == "on")
    assert tiny.weights(tmp_path / "on") == tiny.weights(tmp_path / "off")
    on, off = (tmp_path / f"tuned-{name}" / "model.safetensors" for name in ("on", "off"))
    assert on.read_bytes() == off.read_bytes()


def test_regression(workplace, tmp_path):
    from minidisc.config import FinetuneSettings
    from minidisc.finetuning import finetune

    for name in ("train", "validation"):
        table = read_table(workplace / f"{name}.csv")
        random = np.random.default_rng(0)
        table["label"] = (table["label"] == "pro") * 2.0 + random.normal(0, 0.3, len(table))
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    files = {"train_file": str(tmp_path / "train.csv"), "validation_file": str(tmp_path / "validation.csv")}
    finetune(
        FinetuneSettings(
            model=str(workplace / "backbone"),
            output_dir=str(tmp_path / "teacher"),
            **files,
            epochs=8,
            batch_size=16,
            learning_rate=3e-3,
            device="cpu",
        )
    )
    result = minidisc.compress(
        **{**tiny.settings(workplace, tmp_path / "run", epochs=1), **files, "teacher": str(tmp_path / "teacher")}
    )
    assert result.results["task"]["kind"] == "regression"
    assert result.teacher.metrics["pearson"] > 0.5


def test_a_teacher_with_labels_in_another_order_is_mapped_by_name(workplace, tmp_path, run):
    """The same teacher with its two outputs exchanged, names too, gives the same run."""
    model = AutoModelForSequenceClassification.from_pretrained(workplace / "teacher")
    with torch.no_grad():
        model.classifier.weight.copy_(model.classifier.weight.flip(0))
        model.classifier.bias.copy_(model.classifier.bias.flip(0))
    model.config.id2label = {0: "pro", 1: "contra"}
    model.config.label2id = {"pro": 0, "contra": 1}
    model.save_pretrained(tmp_path / "teacher")
    AutoTokenizer.from_pretrained(workplace / "teacher").save_pretrained(tmp_path / "teacher")
    result = minidisc.compress(
        **{**tiny.settings(workplace, tmp_path / "run"), "teacher": str(tmp_path / "teacher")},
    )
    assert result.teacher.metrics == pytest.approx(run.teacher.metrics)
    assert result.student.metrics["accuracy"] == pytest.approx(tiny.accuracy(result.student.path, workplace))


def test_an_untrained_teacher_and_its_student_are_named_and_again_when_the_run_is_read_again(
    workplace, tmp_path, caplog
):
    settings = {
        **tiny.settings(workplace, tmp_path / "run", epochs=1, schedule="direct"),
        "teacher": str(workplace / "backbone"),
    }
    report = tmp_path / "run" / "report.html"
    for resume in (False, True):
        caplog.clear()
        with caplog.at_level("WARNING", logger="minidisc"):
            warnings = minidisc.compress(**settings, resume=resume).results["warnings"]
        assert "not fine-tuned" in caplog.text
        (line,) = [line for line in warnings if line.startswith("the student scores 0.5")]
        assert "on 60 rows where chance is 0.500: it may give one answer to everything." in line
        assert line in report.read_text()
        assert set(warnings) <= set(caplog.messages)


def test_a_teacher_that_was_fine_tuned_raises_no_warning(workplace, tmp_path, caplog):
    with caplog.at_level("WARNING", logger="minidisc"):
        minidisc.compress(**tiny.settings(workplace, tmp_path / "run", epochs=1, schedule="direct"))
    assert not [record for record in caplog.records if record.name == "minidisc"]


@pytest.mark.parametrize(
    "changes", [{}, {"second_teacher": "both", "trim_vocabulary": True}, {"schedule": "maxidisc"}]
)
def test_a_teacher_that_is_dropped_makes_the_same_student(workplace, tmp_path, monkeypatch, changes):
    freed = []
    step = SandwichTrainer.train_batch

    def noting(self, *arguments):
        freed.append([is_freed(teacher) for teacher in self.teachers])
        return step(self, *arguments)

    monkeypatch.setattr(SandwichTrainer, "train_batch", noting)
    runs = {}
    for name in ("dropped", "kept"):
        if name == "kept":
            monkeypatch.setattr(Preparation, "drop_teacher", lambda _: None)
        runs[name] = minidisc.compress(**tiny.settings(workplace, tmp_path / name, epochs=2, **changes))
        assert freed[0] == [name == "dropped"]
        freed.clear()
    files = [run.student.path / "model.safetensors" for run in runs.values()]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert runs["dropped"].teacher.metrics == runs["kept"].teacher.metrics


def test_the_cost_of_all_trials_is_that_of_running_them(workplace, tmp_path):
    # Nothing stops early.
    settings = tiny.settings(workplace, "", patience=99, epochs=2)
    tried = minidisc.compress(**{**settings, "output_dir": str(tmp_path / "all")}, schedule="maxidisc").cost
    high = np.ones(2**26).nbytes
    one = minidisc.compress(**{**settings, "output_dir": str(tmp_path / "one")}).results["cost"]
    assert one["all_trials_flops"] == pytest.approx(tried.flops, rel=0.03)
    assert one["total"]["flops"] < tried.flops
    # What the process held before is not the run's.
    memory = Path("/proc/self/statm")
    if memory.exists():
        assert one["total"]["peak_memory"] < int(memory.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") + high / 2


def test_every_network_of_a_run_is_timed(run, workplace):
    latency = run.results["latency"]
    sizes = [f"{100 * row['sparsity']:g} %" for row in run.candidates]
    assert list(latency["networks"]) == ["teacher", *["assistant"] * len(run.assistants), "student", *sizes]
    for times in latency["networks"].values():
        assert 0 < times["low"] <= times["processor_milliseconds"] <= times["high"]
        whole = latency["networks"]["teacher"]["processor_milliseconds"]
        assert times["processor_milliseconds"] * times["speedup"] == pytest.approx(whole)
    words = [len(text.split()) for text in read_table(workplace / "train.csv")["text"]]
    assert latency["batch_size"] == 1
    # With [CLS] and [SEP]; some rows are kept for selection.
    assert latency["length"] == pytest.approx(np.mean(words) + 2, abs=1)


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize("schedule", ["direct", "minidisc"])
def test_planned_flops_are_those_that_are_spent(workplace, tmp_path, schedule):
    # No candidate is drawn: nothing is left to chance but which rows pad each other.
    settings = tiny.settings(
        workplace,
        tmp_path / "run",
        schedule=schedule,
        stages=1,
        patience=99,
        candidates_per_step="all",
        target_sparsity=0.5,
        grid=(0.25,),
    )
    planned = minidisc.plan(**settings)
    spent = minidisc.compress(**settings).cost
    assert planned.estimate.flops == pytest.approx(spent.flops, rel=0.03)
    assert planned.steps == [spent.steps]


def test_deepspeed_needs_the_largest_in_every_step(workplace, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(UserError, match=r"smallest\+1 does not go with DeepSpeed"):
        minidisc.compress(**tiny.settings(workplace, tmp_path / "run", candidates_per_step="smallest+1"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("engine", ["FSDP", "DEEPSPEED"])
def test_adafactor_needs_whole_matrices(workplace, tmp_path, monkeypatch, engine):
    monkeypatch.setenv(f"ACCELERATE_USE_{engine}", "true")
    with pytest.raises(UserError, match="adafactor does not go with FSDP and DeepSpeed"):
        minidisc.compress(**tiny.settings(workplace, tmp_path / "run", optimizer="adafactor"))
    assert not (tmp_path / "run").exists()


def test_the_last_stage_has_its_own_learning_rate(workplace, tmp_path, monkeypatch):
    fit, rates = SandwichTrainer.fit, []

    def noting(self):
        rates.append(self.args.learning_rate)
        return fit(self)

    monkeypatch.setattr(SandwichTrainer, "fit", noting)
    own = {"epochs": 1, "learning_rate": 1e-3, "second_learning_rate": 1e-4, "assistants": (0.25,)}
    minidisc.compress(**tiny.settings(workplace, tmp_path / "run", **own))
    assert rates == [1e-3, 1e-4]


def test_the_learning_rate_falls_over_the_run(workplace, tmp_path, monkeypatch):
    class Rates(TrainerCallback):
        def on_step_begin(self, args, state, control, optimizer, **_):
            rates.append(optimizer.param_groups[0]["lr"])

    fit, rates = SandwichTrainer.fit, []
    monkeypatch.setattr(SandwichTrainer, "fit", lambda self: (self.add_callback(Rates()), fit(self)))
    # Eight steps an epoch.
    own = {"epochs": 1, "learning_rate": 1.6e-3, "warmup": 0, "decay_over": "run", "assistants": (0.25,)}
    minidisc.compress(**tiny.settings(workplace, tmp_path / "run", **own))
    assert rates == pytest.approx([1e-4 * (16 - step) for step in range(16)])


def test_the_steps_are_shared_out_as_asked(workplace, tmp_path):
    # Eight steps an epoch: of 32 in two stages a quarter find the assistant.
    own = {"epochs": 2, "patience": 99, "sandwich_share": 0.25, "assistants": (0.25,)}
    settings = tiny.settings(workplace, tmp_path / "run", **own)
    planned = minidisc.plan(**settings)
    result = minidisc.compress(**settings)
    stages = result.results["cost"]["stages"]
    assert planned.steps == [stages["sandwich-1"]["steps"], stages["student"]["steps"]] == [8, 24]
    # Within the first epoch no row is taught twice: only the assistant's outputs are kept.
    assert [name for name in stages if name.startswith("outputs")] == ["outputs of 25 %"]
