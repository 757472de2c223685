"""One training step of minidisc's sandwich, and of separately built dense networks: what several benchmarks time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from dense import dense_networks
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
)

from minidisc.architectures import Architecture, architecture_for
from minidisc.arguments import trainer_arguments
from minidisc.config import CompressSettings, TrainingSettings
from minidisc.demo.assets import backbone_dir
from minidisc.extraction import extract
from minidisc.losses import Truth, distillation_loss, distilled_layers
from minidisc.measure import Shape
from minidisc.outputs import OutputReader
from minidisc.prediction import model_inputs
from minidisc.subnetworks import SubnetworkSpec, make_spec
from minidisc.tasks import Task, collator
from minidisc.teaching import OutputStore
from minidisc.trainer import SandwichArguments, SandwichTrainer

ALL, SAMPLED = "all", CompressSettings.candidates_per_step
_TASK = Task("timed", "classification", ("text",), "label", ("no", "yes"), True, ("accuracy",))
_MANY = 10**6  # steps of the learning rate's schedule, which no benchmark comes to the end of


def random_bert(layers: int, hidden: int, heads: int, neurons: int, vocabulary: int = 30522, length: int = 512) -> Any:
    """A BERT classifier with random weights, on which time does not depend."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=neurons,
        max_position_embeddings=length,
    )
    return BertForSequenceClassification(config)


def loaded_bert(folder: Path | None, shape: str | None) -> Any:
    """A classifier: random of a shape ``layers,hidden,heads,neurons``, else of a folder, else the demo's MiniLM."""
    if shape:
        return random_bert(*map(int, shape.split(",")))
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(folder or backbone_dir(), num_labels=2)


def described(model: Any) -> str:
    """A BERT's shape in words."""
    config = model.config
    return (
        f"BERT of {config.num_hidden_layers} layers, hidden size {config.hidden_size}, "
        f"{config.num_attention_heads} heads, {config.intermediate_size} neurons"
    )


def random_rows(lengths: Sequence[int], vocabulary: int, seed: int = 0) -> datasets.Dataset:
    """Encoded rows of made-up tokens."""
    random = np.random.default_rng(seed)
    ids = [random.integers(5, vocabulary, length).tolist() for length in lengths]
    masks = [[1] * length for length in lengths]
    return datasets.Dataset.from_dict({"input_ids": ids, "attention_mask": masks, "length": list(lengths)})


def padding_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that can do no more than pad rows with 0."""
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"[PAD]": 0}, "[PAD]")), pad_token="[PAD]")


def specs_of(model: Any, sparsities: Sequence[float], seed: int = 0) -> list[SubnetworkSpec]:
    """Candidates by random scores: as ranked over the whole model, each layer keeps its own number."""
    shape = Shape.of(model, architecture_for(model.config.model_type))
    random = np.random.default_rng(seed)
    heads = random.random((len(shape.attentions), shape.heads))
    neurons = random.random((len(shape.ffns), shape.neurons))
    return [make_spec(heads, neurons, s, CompressSettings.neuron_multiple) for s in sparsities]


class OurStep:
    """The step of `minidisc.trainer.SandwichTrainer`, with what transformers' loop does around it.

    The loop's own bookkeeping (callbacks, logging) is left out: `sandwich_step` measures it apart.

    Args:
        teacher: ordered by importance; its outputs on all rows are computed here and kept.
        candidates: of the sandwich.
        rows: encoded.
        tokenizer: pads batches.
        rule: `ALL` or `SAMPLED`.
        work: folder for the teacher's outputs.
        settings: any of `minidisc.config.TrainingSettings`.
    """

    def __init__(
        self,
        teacher: Any,
        candidates: Sequence[SubnetworkSpec],
        rows: Any,
        tokenizer: Any,
        rule: str,
        work: Path,
        **settings: Any,
    ) -> None:
        widest = min(candidates, key=lambda spec: spec.sparsity)
        values = TrainingSettings(**{"device": "cpu", "learning_rate": 1e-4, "warmup": 0.0, **settings})
        self.trainer = SandwichTrainer(
            extract(teacher, widest),
            SandwichArguments(**trainer_arguments(values, work / rule), candidates_per_step=rule),
            teacher=teacher,
            candidates=candidates,
            task=_TASK,
            outputs=None,
            train_rows=rows,
            selection_rows=rows,
            tokenizer=tokenizer,
            stores=[store_in(work)],
        )
        self.trainer.before_training()
        self.trainer.create_optimizer_and_scheduler(_MANY)
        self.trainer.current_gradient_accumulation_steps = 1

    def candidates_of_next(self) -> list[SubnetworkSpec]:
        """What the next step trains."""
        return self.trainer.step_candidates(self.trainer.state.global_step)

    def __call__(self, batch: Sequence[int]) -> float:
        """Train on the rows at these positions; returns the mean of the losses."""
        trainer: Any = self.trainer
        inputs = trainer.data_collator(trainer.train_dataset.__getitems__(list(batch)))
        loss = trainer.training_step(trainer.model, inputs)
        trainer.accelerator.clip_grad_norm_(trainer.model.parameters(), trainer.args.max_grad_norm)
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
        trainer.model.zero_grad()
        trainer.state.global_step += 1
        return float(loss)


def store_in(work: Path) -> OutputStore:
    """Where the teacher's outputs are kept."""
    return OutputStore(work / "outputs" / "teacher", CompressSettings.teacher_cache * 2**30)


class FloorStep:
    """The floor: a dense network for each candidate, built apart, with every trick of ours that fits them.

    Batches of similar length, stored outputs of the teacher, one pass of the embeddings for all networks, one step of
    fused AdamW on the widest network. What a weight-shared network has to do besides, which is to slice weights and
    to add up gradients, is not done.

    Args:
        teacher: as for `OurStep`, whose stored outputs in ``work`` are read.
        candidates: a network is built for each.
        rows: encoded.
        tokenizer: pads batches.
        work: folder of `OurStep`.
    """

    def __init__(
        self, teacher: Any, candidates: Sequence[SubnetworkSpec], rows: Any, tokenizer: Any, work: Path
    ) -> None:
        self._architecture: Architecture = architecture_for(teacher.config.model_type)
        states = distilled_layers(teacher.config.num_hidden_layers)
        self.networks, self._embeddings, self._given = dense_networks(teacher, candidates)
        self.widest = min(candidates, key=lambda spec: spec.sparsity)
        self._readers = {
            spec: OutputReader(network, self._architecture, states, False) for spec, network in self.networks.items()
        }
        self._rows, self._collate = rows, collator(tokenizer)
        self._stored = store_in(work).read(rows["length"])
        self._trained = [*self.networks[self.widest].parameters(), *self._embeddings.parameters()]
        self._optimizer = torch.optim.AdamW(self._trained, lr=1e-4, weight_decay=0.01, fused=True)

    def __call__(self, batch: Sequence[int], candidates: Sequence[SubnetworkSpec]) -> float:
        """Train on the rows at these positions; returns the mean of the losses."""
        inputs = model_inputs(self._collate(self._rows.__getitems__(list(batch))), torch.device("cpu"))
        truth = Truth(inputs["attention_mask"], None, None)
        target = self._stored(batch, truth.mask)
        embedded = self._embeddings(input_ids=inputs["input_ids"], token_type_ids=inputs.get("token_type_ids"))
        self._given.value = embedded.detach().requires_grad_()
        total = 0.0
        for spec in candidates:
            loss = distillation_loss(self._readers[spec](inputs), target, truth) / len(candidates)
            loss.backward()
            total += loss.item()
        embedded.backward(self._given.value.grad)
        torch.nn.utils.clip_grad_norm_(self._trained, 1.0)
        self._optimizer.step()
        for network in (*self.networks.values(), self._embeddings):
            network.zero_grad()
        return total


def step_flops(shape: Shape, candidates: Sequence[SubnetworkSpec], rows: int, length: int) -> float:
    """Forward and, twice that, backward, of every candidate; without a teacher."""
    return 3 * sum(map(partial(shape.forward_flops, rows=rows, length=length), candidates))
