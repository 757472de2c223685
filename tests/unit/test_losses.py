import math

import pytest
import torch
from torch import nn

from minidisc.architectures import architecture_for
from minidisc.losses import (
    LOSSES,
    Outputs,
    Share,
    Truth,
    distillation_loss,
    distilled_layers,
    hidden_state_loss,
    label_loss,
    logit_loss,
    logits_only,
    minilm_loss,
    pkd_loss,
    relation_loss,
    task_loss,
)
from minidisc.teaching import keep_largest


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (12, [0, 2, 4, 6, 8, 10, 12]),
        (24, [0, 4, 8, 12, 16, 20, 24]),
        (6, [0, 1, 2, 3, 4, 5, 6]),
        (4, [0, 1, 2, 3, 4]),
        (3, [0, 1, 2, 3]),
        (2, [0, 1, 2]),
        (1, [0, 1]),
    ],
)
def test_distilled_layers(layers, expected):
    assert distilled_layers(layers) == expected


@pytest.mark.parametrize(
    ("layers", "decoder", "expected"),
    [
        (3, 2, [0, 1, 2, 3, 4, 5, 6]),
        (12, 12, [0, 2, 4, 6, 8, 10, 12, 13, 15, 17, 19, 21, 23, 25]),
        (3, 0, [0, 1, 2, 3]),
    ],
)
def test_distilled_layers_of_an_encoder_and_a_decoder(layers, decoder, expected):
    assert distilled_layers(layers, decoder) == expected


def test_task_loss_of_classes_by_hand():
    # softmax(0, ln 3) = (1/4, 3/4); softmax(ln 2, 0) = (2/3, 1/3)
    logits = torch.tensor([[0.0, math.log(3)], [math.log(2), 0.0]])
    loss = task_loss(logits, torch.tensor([1, 1]))
    assert loss.item() == pytest.approx(-(math.log(3 / 4) + math.log(1 / 3)) / 2, rel=1e-6)


def test_task_loss_of_numbers_by_hand():
    assert task_loss(torch.tensor([[1.0], [4.0]]), torch.tensor([0.0, 2.0])).item() == pytest.approx(2.5)
    # A single row must not be taken for a scalar.
    assert task_loss(torch.tensor([[3.0]]), torch.tensor([1.0])).item() == pytest.approx(4.0)


def test_logit_loss_is_divergence_plus_entropy():
    student, teacher = normal(5, 3, seed=1), normal(5, 3, seed=2)
    q, p = student.log_softmax(-1), teacher.softmax(-1)
    truth = nn.KLDivLoss(reduction="batchmean")(q, p) + torch.distributions.Categorical(p).entropy().mean()
    torch.testing.assert_close(logit_loss(student, teacher), truth)


def test_logit_loss_is_least_at_the_teacher():
    teacher = normal(5, 3)
    student = teacher.clone().requires_grad_()
    logit_loss(student, teacher).backward()
    torch.testing.assert_close(student.grad, torch.zeros(5, 3), atol=1e-7, rtol=0)


def test_logit_loss_of_a_single_output_is_squared_error():
    student, teacher = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [5.0]])
    assert logit_loss(student, teacher).item() == pytest.approx((1 + 9) / 2)


MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])
TRUTH = Truth(MASK, None, [0, 1])


def states(seed, count=3):
    return [normal(3, 4, 5, seed=100 * seed + i) for i in range(count)]


def per_token(student, teacher, mask):
    """Mean over the states of the mean over tokens of nn.MSELoss of a token."""
    means = []
    for s, t in zip(student, teacher, strict=True):
        tokens = [(r, c) for r in range(mask.shape[0]) for c in range(mask.shape[1]) if mask[r, c]]
        means.append(sum(nn.MSELoss()(s[r, c], t[r, c]) for r, c in tokens) / len(tokens))
    return sum(means) / len(means)


def test_hidden_state_loss_token_by_token():
    student, teacher = states(1), states(2)
    torch.testing.assert_close(hidden_state_loss(student, teacher, MASK), per_token(student, teacher, MASK))


def test_hidden_state_loss_without_padding_is_plain_mse():
    student, teacher = states(1), states(2)
    truth = nn.MSELoss()(torch.stack(student), torch.stack(teacher))
    torch.testing.assert_close(hidden_state_loss(student, teacher, torch.ones_like(MASK)), truth)


def test_a_hidden_state_may_have_its_own_width():
    student, teacher = [*states(1), normal(3, 4, 2, seed=7)], [*states(2), normal(3, 4, 2, seed=8)]
    torch.testing.assert_close(hidden_state_loss(student, teacher, MASK), per_token(student, teacher, MASK))


def test_padding_has_no_influence():
    student, teacher = [s.requires_grad_() for s in states(1)], states(2)
    loss = hidden_state_loss(student, teacher, MASK)
    loss.backward()
    padding = MASK == 0
    for state in student:
        assert not state.grad[padding].any()
        assert state.grad[~padding].all()
    disturbed = [t.masked_fill(padding[..., None], 1e4) for t in teacher]
    torch.testing.assert_close(hidden_state_loss(student, disturbed, MASK), loss)
    longer = [nn.functional.pad(s.detach(), (0, 0, 0, 2), value=9.0) for s in student]
    wider = [nn.functional.pad(t, (0, 0, 0, 2), value=-9.0) for t in teacher]
    mask = nn.functional.pad(MASK, (0, 2))
    torch.testing.assert_close(hidden_state_loss(longer, wider, mask), loss)


def test_hidden_states_must_be_as_many():
    with pytest.raises(ValueError, match="zip"):
        hidden_state_loss(states(1), states(2, count=2), MASK)


def test_distillation_loss_is_the_mean_of_both():
    student, teacher = normal(3, 2, seed=5), normal(3, 2, seed=6)
    cross_entropy = -(teacher.softmax(-1) * student.log_softmax(-1)).sum(-1).mean()
    expected = (per_token(states(1), states(2), MASK) + cross_entropy) / 2
    given = distillation_loss(Outputs(student, states(1)), Outputs(teacher, states(2)), TRUTH)
    torch.testing.assert_close(given, expected)


def test_logits_only_looks_at_nothing_else():
    student, teacher = normal(3, 2, seed=5), normal(3, 2, seed=6)
    given = logits_only(Outputs(student, states(1)), Outputs(teacher, states(2)), TRUTH)
    torch.testing.assert_close(given, logit_loss(student, teacher))


@pytest.mark.parametrize(
    ("mask", "at_last", "tokens"),
    [(MASK, False, [0, 0, 0]), (MASK, True, [3, 1, 0]), (MASK.flip(1), True, [3, 3, 3])],
    ids=["first", "last", "last behind padding"],
)
def test_pkd_term_by_term(mask, at_last, tokens):
    student, teacher = normal(3, 3, seed=5), normal(3, 3, seed=6)
    # The model's outputs 2 and 0 are the classes 0 and 1.
    truth = Truth(mask, torch.tensor([1, 0, 1]), [2, 0], at_last=at_last)
    labels = nn.NLLLoss()(student[:, [2, 0]].log_softmax(-1), torch.tensor([1, 0, 1]))
    q, p = (student / 10).log_softmax(-1), (teacher / 10).softmax(-1)
    logits = 100 * -(p * q).sum(-1).mean()
    patient = 0.0
    for s, t in zip(states(1), states(2), strict=True):
        pairs = [(s[r, i], t[r, i]) for r, i in enumerate(tokens)]
        patient += sum((a / a.norm() - b / b.norm()).square().mean() for a, b in pairs) / 3
    given = pkd_loss(Outputs(student, states(1)), Outputs(teacher, states(2)), truth)
    torch.testing.assert_close(given, 0.5 * labels + 0.5 * logits + 100 * patient)


def test_families_that_read_the_label_from_the_last_token(family):
    inputs = family.inputs()
    output = family.model()(**inputs, output_hidden_states=True)
    state = (output.get("decoder_hidden_states") or output.get("hidden_states"))[-1]
    state.retain_grad()
    output.logits.square().sum().backward()
    reached = [row.nonzero().flatten().tolist() for row in state.grad.any(-1)]
    last = [[length - 1] for length in inputs["attention_mask"].sum(1).tolist()]
    assert (reached == last) == architecture_for(family.family).pools_late


def relations_of(vectors, heads, row):
    """softmax(A·Aᵀ/√d) of a row's real tokens, head by head."""
    tokens = int(MASK[row].sum())
    parts = vectors[row, :tokens].chunk(heads, dim=-1)
    return [(part @ part.T / math.sqrt(part.shape[-1])).softmax(-1) for part in parts]


@pytest.mark.parametrize(("width", "heads"), [(64, 32), (32, 32), (24, 8)])
def test_relation_loss_head_by_head(width, heads):
    student, teacher = normal(3, 4, width, seed=1), normal(3, 4, 96, seed=2)
    terms = []
    for row in range(3):
        pairs = zip(relations_of(student, heads, row), relations_of(teacher, heads, row), strict=True)
        terms += [-(p * q.log()).sum(-1) for q, p in pairs]
    torch.testing.assert_close(relation_loss(student, teacher, MASK), torch.cat(terms).mean())


def test_minilm_is_the_mean_of_the_relations_and_the_logits():
    student, teacher = normal(3, 2, seed=5), normal(3, 2, seed=6)
    narrow = [normal(3, 4, 32, seed=i) for i in range(3)]
    wide = [normal(3, 4, 96, seed=10 + i) for i in range(3)]
    relations = sum(relation_loss(s, t, MASK) for s, t in zip(narrow, wide, strict=True)) / 3
    given = minilm_loss(Outputs(student, (), narrow), Outputs(teacher, (), wide), TRUTH)
    torch.testing.assert_close(given, relations + logit_loss(student, teacher))
    # A student without any head still learns the logits.
    alone = minilm_loss(Outputs(student, ()), Outputs(teacher, (), wide), TRUTH)
    torch.testing.assert_close(alone, logit_loss(student, teacher))


def test_labels_need_no_teacher():
    student = normal(3, 3, seed=5)
    labels = torch.tensor([1, 0, 1])
    given = label_loss(Outputs(student, ()), None, Truth(MASK, labels, [2, 0]))
    torch.testing.assert_close(given, nn.NLLLoss()(student[:, [2, 0]].log_softmax(-1), labels))


@pytest.mark.parametrize("outputs", ["rows", "tokens", "largest"])
@pytest.mark.parametrize("loss", LOSSES)
def test_parts_of_a_batch_count_for_what_they_hold_of_it(loss, outputs):
    """The first part has a third of the rows, four of seven tokens, and two of three labels."""
    shape = (3, 3) if outputs == "rows" else (3, 4, 9)
    labels = torch.tensor([1, 0, 1])
    if outputs != "rows":
        labels = torch.tensor([[2, -100, 0, -100], [1, -100, -100, -100], [-100] * 4])

    def made(seed, rows):
        relations = [normal(3, 4, 32, seed=200 * seed + i)[rows] for i in range(3)]
        logits = normal(*shape, seed=seed)[rows]
        kept = keep_largest(logits, 2) if outputs == "largest" else None
        return Outputs(logits, [state[rows] for state in states(seed)], relations, kept)

    def of(rows, share):
        truth = Truth(MASK[rows], labels[rows], None, share)
        return LOSSES[loss](made(1, rows), made(2, rows), truth)

    shares = [Share(1 / 1.5, 4 / 3.5, 2 / 1.5), Share(2 / 1.5, 3 / 3.5, 1 / 1.5)]
    if outputs == "rows":
        shares = [Share(share.rows, share.tokens, share.rows) for share in shares]
    parts = [of(rows, share) for rows, share in zip((slice(0, 1), slice(1, 3)), shares, strict=True)]
    torch.testing.assert_close(sum(parts) / 2, of(slice(0, 3), Share()))
