"""A trainer of tiny networks."""

from functools import partial

from minidisc.arguments import trainer_arguments
from minidisc.config import TrainingSettings
from minidisc.extraction import extract
from minidisc.subnetworks import SubnetworkSpec
from minidisc.tasks import Task
from minidisc.trainer import SandwichArguments, SandwichTrainer
from tests.unit.families import BERT, text_rows, tiny_tokenizer, training_rows

SMALL = SubnetworkSpec(0.9, (1, 0, 1), (5, 0, 8))
MIDDLE = SubnetworkSpec(0.7, (1, 2, 1), (20, 12, 8))
LARGE = SubnetworkSpec(0.5, (3, 2, 2), (20, 40, 30))
CANDIDATES = [LARGE, SMALL, MIDDLE]
EXTRA = ("loss", "candidates_per_step", "dropout", "optim", "train_embeddings")
TASK = Task("t", "classification", ("text",), "label", ("no", "yes"), True, ("accuracy",))
WRITING = Task("t", "causal-lm", ("text",), "label", None, False, ("next_token_accuracy", "perplexity"))


def trainer_for(
    folder, family=BERT, *, rows=(9,) * 8, candidates=CANDIDATES, double=False, cut=False, writes=False, **changes
):
    """A trainer of a network with random weights, full-width or cut to its widest candidate, against another one.

    ``writes`` makes them language models, whose heads are their embeddings.
    """
    extra = {name: changes.pop(name) for name in EXTRA if name in changes}
    model = partial(family.causal_model, tie_word_embeddings=True) if writes else family.model
    student = model(seed=1, dropout=changes.pop("student_dropout", 0.0))
    # As a training leaves them, which may have had dropout.
    drawn = {"num_hidden_layers": changes.pop("teacher_layers")} if "teacher_layers" in changes else {}
    teachers = [model(seed=seed, **drawn).train() for seed in changes.pop("teachers", [2])]
    candidates = [family.fit(spec) for spec in candidates]
    if cut:
        student = extract(student, max(candidates, key=lambda spec: sum(spec.neurons))).train()
    if double:
        student, teachers = student.double(), [teacher.double() for teacher in teachers]
    task, outputs = (WRITING, None) if writes else (changes.pop("task", TASK), changes.pop("outputs", [0, 1]))
    others = {name: changes.pop(name) for name in ("progress", "stores", "always") if name in changes}
    settings = TrainingSettings(**{"device": "cpu", "learning_rate": 1e-3, "warmup": 0.0, "batch_size": 4, **changes})
    return SandwichTrainer(
        student,
        SandwichArguments(**{**trainer_arguments(settings, folder), "candidates_per_step": "all", **extra}),
        teacher=teachers if len(teachers) > 1 else teachers[0],
        candidates=candidates,
        task=task,
        outputs=outputs,
        train_rows=text_rows(family, len(rows)) if writes else training_rows(family, rows),
        selection_rows=text_rows(family, 6, seed=3) if writes else training_rows(family, [5, 9, 3, 12, 7, 7], seed=3),
        tokenizer=tiny_tokenizer(),
        **others,
    )
