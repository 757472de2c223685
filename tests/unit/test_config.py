import dataclasses

import pytest

from minidisc import compress, plan
from minidisc.comparison import compare
from minidisc.config import (
    CompareSettings,
    CompressSettings,
    DataSettings,
    EvaluateSettings,
    ExportSettings,
    FinetuneSettings,
    TrainingSettings,
    sandwich_rule,
)
from minidisc.errors import UserError
from minidisc.values import settings_from

COMPRESS = {"teacher": "t", "output_dir": "o"}
FINETUNE = {"model": "m", "output_dir": "o"}


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [
        (CompressSettings, {"teachr": "x"}, "unknown setting 'teachr'; allowed are assistants, batch_size, "),
        (CompressSettings, {"batch_size": "many"}, "batch_size is 'many'; int is expected"),
        (CompressSettings, {"batch_size": 1.5}, "batch_size is 1.5; int is expected"),
        (CompressSettings, {"batch_size": [1]}, "batch_size is [1]; int is expected"),
        (CompressSettings, {"learning_rate": "fast"}, "learning_rate is 'fast'; float is expected"),
        (CompressSettings, {"grid": "0.5;0.7"}, "grid is '0.5;0.7'"),
        (CompressSettings, {"grid": 0.5}, "grid is 0.5"),
        (CompressSettings, {"keep_checkpoints": "yes"}, "keep_checkpoints is 'yes'; bool is expected"),
        (CompressSettings, {"epochs": None}, "epochs is None; float is expected"),
        (CompressSettings, {"latency_batch_size": None}, "latency_batch_size is None; int is expected"),
        (CompressSettings, {"keep_sizes": None}, "keep_sizes is None; bool is expected"),
        (CompressSettings, {"device": None}, "device is None; str is expected"),
        (CompareSettings, {"seeds": None}, "seeds is None; tuple[int, ...] is expected"),
        (CompressSettings, {"teacher": None}, "--teacher is missing"),
        (CompressSettings, {"output_dir": ""}, "--output-dir is missing"),
        (CompressSettings, {"target_sparsity": 90}, "--target-sparsity is 90; "),
        (CompressSettings, {"target_sparsity": 1}, "--target-sparsity is 1; "),
        (CompressSettings, {"target_sparsity": -0.1}, "--target-sparsity is -0.1; "),
        (CompressSettings, {"target_sparsity": 0}, "--target-sparsity 0 gives a student as large as the teacher"),
        (CompressSettings, {"target_sparsity": "nan"}, "target_sparsity is 'nan'"),
        (CompressSettings, {"tradeoff_lambda": 1.1}, "--tradeoff-lambda is 1.1; allowed is [0, 1]"),
        (CompressSettings, {"grid": "0.5,1"}, "--grid holds 1; "),
        (CompressSettings, {"grid": "0,0.5"}, "--grid holds 0; "),
        (CompressSettings, {"neuron_multiple": 0}, "--neuron-multiple is 0; "),
        (CompressSettings, {"stages": 0}, "--stages is 0; "),
        (CompressSettings, {"schedule": "slow"}, "--schedule is 'slow'; allowed are minidisc, "),
        (CompressSettings, {"second_stage": "x"}, "--second-stage is 'x'; allowed are student, sandwich"),
        (CompressSettings, {"select_on": "test"}, "--select-on is 'test'; allowed are train, validation"),
        (CompressSettings, {"selection_fraction": 1}, "--selection-fraction is 1; "),
        (CompressSettings, {"latency_batch_size": 0}, "--latency-batch-size is 0; "),
        (CompressSettings, {"embedding_rank": 0}, "--embedding-rank is 0; "),
        (CompressSettings, {"max_grad_norm": -1}, "--max-grad-norm is -1; "),
        (CompressSettings, {"calibration_rows": 0}, "--calibration-rows is 0; "),
        (CompressSettings, {"dropout": 1}, "--dropout is 1; "),
        (
            CompressSettings,
            {"candidates_per_step": "some"},
            "--candidates-per-step is 'some'; allowed are 'all', ",
        ),
        (CompressSettings, {"epochs": 0}, "--epochs is 0"),
        (CompressSettings, {"epochs": "nan"}, "epochs is 'nan'"),
        (CompressSettings, {"batch_size": 0}, "--batch-size is 0; "),
        (CompressSettings, {"gradient_accumulation_steps": 0}, "--gradient-accumulation-steps is 0; "),
        (CompressSettings, {"learning_rate": -1}, "--learning-rate is -1"),
        (CompressSettings, {"max_steps": 0}, "--max-steps is 0; "),
        (CompressSettings, {"warmup": 1}, "--warmup is 1"),
        (CompressSettings, {"patience": 0}, "--patience is 0; "),
        (CompressSettings, {"seed": -1}, "--seed is -1; "),
        (CompressSettings, {"device": "tpu"}, "--device is 'tpu'; allowed are auto, cpu, cuda, mps"),
        (CompressSettings, {"precision": None}, "--precision is 'None'; allowed are auto, fp32, bf16"),
        (CompressSettings, {"precision": "fp16"}, "--precision is 'fp16'; allowed are auto, fp32, bf16"),
        (CompressSettings, {"max_length": 3}, "--max-length is 3; "),
        (CompressSettings, {"text_columns": "a,b,c"}, "--text-columns names 3 columns; "),
        (CompressSettings, {"max_train_rows": 0}, "--max-train-rows is 0; "),
        (FinetuneSettings, {"model": None}, "--model is missing"),
        (FinetuneSettings, {"output_dir": None}, "--output-dir is missing"),
        (FinetuneSettings, {"teacher": "x"}, "unknown setting 'teacher'"),
        (EvaluateSettings, {"output_dir": None, "model": "m"}, "unknown setting 'output_dir'"),
        (EvaluateSettings, {"batch_size": None, "model": "m"}, "batch_size is None; int is expected"),
        (ExportSettings, {"int8": None, "model": "m"}, "int8 is None; bool is expected"),
    ],
)
def test_one_line_says_what_is_wrong(cls, values, message):
    base = COMPRESS if cls is CompressSettings else FINETUNE if cls is FinetuneSettings else {}
    with pytest.raises(UserError) as caught:
        settings_from(cls, {**base, **values})
    text = str(caught.value)
    assert message in text
    assert "\n" not in text
    assert text.endswith((".", "…"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", (True, None)),
        ("largest+smallest+0", (True, 0)),
        ("largest+smallest+12", (True, 12)),
        ("smallest+1", (False, 1)),
    ],
)
def test_sandwich_rule(text, expected):
    assert sandwich_rule(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "All",
        "largest",
        "largest+1",
        "largest+smallest",
        "largest+smallest+",
        "largest+smallest+-1",
        "smallest",
        "smallest+²",
    ],
)
def test_other_rules_are_refused(text):
    with pytest.raises(UserError, match="candidates-per-step"):
        sandwich_rule(text)


@pytest.mark.parametrize(
    ("settings", "finding", "last"),
    [
        # Ten rows in batches of two: five steps an epoch, ten of each stage.
        ({}, 10, 10),
        ({"sandwich_share": 0.25}, 5, 15),
        ({"sandwich_share": 0.25, "max_steps": 100}, 50, 150),
        # A fifth of thirty for two sandwiches; at least a step.
        ({"sandwich_share": 0.2, "stages": 3}, 3, 24),
        ({"sandwich_share": 0.01}, 1, 20),
        ({"sandwich_share": 0.25, "stages": 1}, 10, 10),
        ({"sandwich_share": 0.25, "schedule": "direct"}, 10, 10),
    ],
)
def test_the_steps_of_a_stage(settings, finding, last):
    given = settings_from(CompressSettings, {**COMPRESS, "batch_size": 2, "epochs": 2, **settings})
    assert [given.of_stage(10, number).steps(10) for number in (1, None)] == [finding, last]


@pytest.mark.parametrize(
    ("settings", "finding", "last"),
    [
        ({}, 3e-4, 3e-4),
        ({"second_learning_rate": 1e-4}, 3e-4, 1e-4),
        ({"second_learning_rate": 1e-4, "sandwich_share": 0.25}, 3e-4, 1e-4),
        ({"second_learning_rate": 1e-4, "stages": 1}, 3e-4, 3e-4),
        ({"second_learning_rate": 1e-4, "schedule": "direct"}, 3e-4, 3e-4),
    ],
)
def test_the_learning_rate_of_a_stage(settings, finding, last):
    given = settings_from(CompressSettings, {**COMPRESS, "learning_rate": 3e-4, **settings})
    assert [given.of_stage(10, number).learning_rate for number in (1, None)] == [finding, last]


def test_the_steps_of_a_stage_are_its_own_whatever_its_learning_rate():
    both = {"second_learning_rate": 1e-4, "sandwich_share": 0.25}
    given = settings_from(CompressSettings, {**COMPRESS, "batch_size": 2, "epochs": 2, **both})
    assert [given.of_stage(10, number).steps(10) for number in (1, 2)] == [5, 15]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # Ten rows in batches of two, two epochs a stage: (from, to) of each stage.
        ({}, [(8e-4, 4e-4), (4e-4, 0)]),
        ({"sandwich_share": 0.25}, [(8e-4, 6e-4), (6e-4, 0)]),
        ({"stages": 4}, [(8e-4, 6e-4), (6e-4, 4e-4), (4e-4, 2e-4), (2e-4, 0)]),
        ({"final_learning_rate": 2e-4}, [(8e-4, 5e-4), (5e-4, 2e-4)]),
        ({"no_gap": "stop"}, [(8e-4, 0), (8e-4, 0)]),
        ({"schedule": "direct"}, [(8e-4, 0)]),
        ({"stages": 1}, [(8e-4, 0)]),
    ],
)
def test_a_learning_rate_that_falls_over_the_run(settings, expected):
    given = {**COMPRESS, "batch_size": 2, "epochs": 2, "learning_rate": 8e-4, "decay_over": "run", **settings}
    found = [settings_from(CompressSettings, given).of_stage(10, number + 1) for number in range(len(expected))]
    for own, rates in zip(found, expected, strict=True):
        assert (own.learning_rate, own.final_learning_rate) == pytest.approx(rates)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"final_learning_rate": 1e-4}, "--final-learning-rate is 0.0001; allowed is from 0 to less than the peak"),
        ({"final_learning_rate": -1}, "--final-learning-rate is -1"),
        ({"decay_over": "epoch"}, "--decay-over is 'epoch'; allowed are stage, run"),
        ({"decay_over": "run", "second_learning_rate": 1e-5}, "--second-learning-rate goes with --decay-over stage"),
    ],
)
def test_decays_that_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        settings_from(CompressSettings, {**COMPRESS, "learning_rate": 1e-4, **settings})


def test_a_learning_rate_of_nothing_is_refused():
    for rate, final in ((0, 0), (1e-6, 1e-5), (1e-5, 1e-5)):
        given = {**COMPRESS, "second_learning_rate": rate, "final_learning_rate": final}
        with pytest.raises(UserError, match=f"--second-learning-rate is {rate:g}; .* greater than .*{final:g}"):
            settings_from(CompressSettings, given)


@pytest.mark.parametrize("share", [0, 1, -0.5])
def test_a_share_of_nothing_or_all_is_refused(share):
    with pytest.raises(UserError, match="sandwich-share"):
        settings_from(CompressSettings, {**COMPRESS, "sandwich_share": share})


@pytest.mark.parametrize("cls", [DataSettings, TrainingSettings, FinetuneSettings, EvaluateSettings, CompressSettings])
def test_every_setting_has_a_help_text(cls):
    for field in dataclasses.fields(cls):
        assert field.metadata["help"]


@pytest.mark.parametrize("given", [{"teacher": "other"}, {"task": "glue/rte"}, {"epochs": 1, "keep_sizes": None}])
@pytest.mark.parametrize(
    ("function", "cls"), [(compress, CompressSettings), (plan, CompressSettings), (compare, CompareSettings)]
)
def test_nothing_is_given_beside_all_settings(tmp_path, function, cls, given):
    settings = cls(teacher="./nowhere", output_dir=str(tmp_path / "run"))
    with pytest.raises(UserError, match=rf"^settings are given, and {', '.join(given)} beside them"):
        function(settings=settings, **given)
    with pytest.raises(UserError, match=r"\./nowhere does not exist"):
        function(settings=settings)


def test_a_budget_beside_the_sparsity_of_settings_without_a_target():
    settings = CompressSettings(**COMPRESS)
    with pytest.raises(UserError, match=r"give one target \(.* is 0\.9; .* target_sparsity=None takes it"):
        dataclasses.replace(settings, target_size="20MB")
    again = dataclasses.replace(settings, target_size="20MB", target_sparsity=None)
    assert (again.target_sparsity, again.target_size) == (None, "20MB")
    with pytest.raises(UserError, match=r"--target-sparsity and --target-size are given; give one target\.$"):
        CompressSettings(**COMPRESS, target_sparsity=0.8, target_size="20MB")


def test_settings_survive_plain_values():
    settings = settings_from(CompressSettings, {**COMPRESS, "grid": "0.5,0.8", "task": "glue/rte", "max_steps": 7})
    assert settings_from(CompressSettings, dataclasses.asdict(settings)) == settings
