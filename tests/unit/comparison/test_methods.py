import dataclasses

import pytest

from minidisc.comparison.methods import in_order, parse_method, read_method
from minidisc.config import CompareSettings
from minidisc.errors import UserError

COMMON = CompareSettings(teacher="t", output_dir="o", epochs=2, learning_rate=1e-3, seed=9)


def test_a_schedule_alone_takes_all_from_the_comparison():
    settings = parse_method("direct").settings(COMMON, 0.95, 4)
    assert (settings.schedule, settings.target_sparsity, settings.seed) == ("direct", 0.95, 4)
    assert (settings.epochs, settings.learning_rate) == (2, 1e-3)


def test_a_method_changes_what_it_names():
    method = parse_method("minidisc:stages=3:second-stage=sandwich:train_embeddings=false")
    settings = method.settings(COMMON, 0.9, 0)
    assert (settings.stages, settings.second_stage, settings.train_embeddings) == (3, "sandwich", False)
    assert settings.epochs == 2


def test_a_slash_is_the_comma_of_a_list():
    assert parse_method("chain:assistants=0.5/0.7").settings(COMMON, 0.9, 0).assistants == (0.5, 0.7)


def test_epochs_of_its_own_stand_above_the_comparisons_steps():
    common = dataclasses.replace(COMMON, max_steps=600)
    found = [
        parse_method(f"direct{own}").settings(common, 0.9, 0) for own in ("", ":epochs=10", ":max_steps=7:epochs=10")
    ]
    assert [(settings.max_steps, settings.epochs) for settings in found] == [(600, 2), (None, 10), (7, 10)]
    assert [settings.steps(320) for settings in found] == [600, 100, 7]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("direct:epochs=3:flops_of=minidisc", "flops_of says how long it is trained, and epochs too"),
        ("finetune:max-steps=3:flops_of=minidisc", "flops_of says how long it is trained, and max_steps too"),
        ("finetune:loss=pkd", "loss changes nothing for finetune"),
        ("direct:second_teacher=both", "second_teacher changes nothing for direct"),
        ("chain:assistants=0.5:sandwich_share=0.1", "sandwich_share changes nothing for chain"),
        ("maxidisc:second_stage=sandwich:stages=4", "second_stage changes nothing for maxidisc"),
    ],
)
def test_settings_that_would_change_nothing(text, words):
    with pytest.raises(UserError, match=words) as caught:
        parse_method(text)
    assert repr(text) in str(caught.value)
    # Of a comparison that has it.
    assert read_method(text).name == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("distil", "begins with one of minidisc, direct, finetune, maxidisc, chain"),
        ("direct:los=pkd", "'los=pkd' is not SETTING=VALUE with one of"),
        ("direct:loss", "'loss' is not SETTING=VALUE"),
        ("direct:max_length=3", "'max_length=3' is not SETTING=VALUE"),
    ],
)
def test_unknown_methods(text, words):
    with pytest.raises(UserError, match=words):
        parse_method(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("chain", "--schedule chain needs --assistants"),
        ("direct:assistants=0.5", "--assistants goes with --schedule chain or minidisc, not direct"),
        ("minidisc:assistants=0.5/0.6", "--assistants names 2, but --stages 2 of minidisc has 1; give as many"),
        ("chain:assistants=0.7/0.5", "must rise"),
        ("chain:assistants=0.95", "between 0 and the target"),
        ("minidisc:student=layers", "--student layers goes with"),
        ("minidisc:second_importance=assistant:second_stage=sandwich", "goes with --second-stage student"),
        ("direct:loss=mse", "--loss is 'mse'"),
        ("direct:epochs=many", "epochs is 'many'"),
        ("minidisc:train_embeddings=maybe", "train_embeddings is 'maybe'"),
    ],
)
def test_settings_that_do_not_go_together_name_the_method(text, words):
    with pytest.raises(UserError, match=words) as caught:
        parse_method(text).settings(COMMON, 0.9, 0)
    assert text in str(caught.value)


def test_a_method_with_anothers_budget_waits_for_it():
    methods = [parse_method(text) for text in ("direct:flops_of=minidisc", "finetune", "minidisc")]
    assert [m.name for m in in_order(methods)] == ["finetune", "minidisc", "direct:flops_of=minidisc"]
    assert methods[0].flops_of == "minidisc"
    assert methods[0].changes == {}


def test_the_other_method_may_have_settings():
    texts = ("direct:loss=logits:flops_of=chain:assistants=0.6/0.8", "chain:assistants=0.6/0.8")
    direct, _ = methods = [parse_method(text) for text in texts]
    assert direct.changes == {"loss": "logits"}
    assert direct.flops_of == "chain:assistants=0.6/0.8"
    assert [m.name for m in in_order(methods)] == [texts[1], texts[0]]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["direct:flops_of=minidisc"], "no method 'minidisc'"),
        (["minidisc", "direct:flops_of=minidisc:loss=logits"], "no method 'minidisc:loss=logits'"),
        (["minidisc", "direct:flops_of=finetune"], "no method 'finetune'"),
        (["direct", "minidisc:flops_of=direct"], "goes with direct or finetune"),
    ],
)
def test_budgets_that_cannot_be_known(texts, words):
    with pytest.raises(UserError, match=words):
        in_order([parse_method(text) for text in texts])
