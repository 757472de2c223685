"""From a pre-trained model and labelled rows to a teacher."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from minidisc.architectures import STUDENT_PREFIX, architecture_for
from minidisc.arguments import ResumableArguments, trainer_arguments
from minidisc.config import FinetuneSettings
from minidisc.devices import moved
from minidisc.disk import check_disk, disk_of_training
from minidisc.errors import UserError
from minidisc.extraction import note_length, save_model, write_small
from minidisc.files import new_folder, read_json, write_json
from minidisc.finetuned_card import write_finetuned_card
from minidisc.label_scale import LabelScale
from minidisc.losses import Outputs, Truth, label_loss
from minidisc.modeling.t5_classifiers import EncT5Config, T5EncoderConfig
from minidisc.prediction import model_inputs, predict
from minidisc.randomness import callers_randomness
from minidisc.refusals import chance_warning, scale_warning
from minidisc.results import Cost
from minidisc.resumable import ResumableTrainer
from minidisc.runs import (
    check_new,
    in_use,
    open_run,
    read_config,
    read_fingerprints,
    remove_run,
    run_key,
    settled,
    trained_with,
    training_folder,
)
from minidisc.tasks import CAUSAL_LM, Cut, Task, TaskData, encode_for, label_array, load_data
from minidisc.teachers import Loaded, check_length, check_tokens, fingerprint_of, load_config, load_model
from minidisc.tokenization import tokenizer_fingerprint
from minidisc.values import check_class, settings_from

_logger = logging.getLogger("minidisc")
# Beside the model: by it a resumed training is known to be finished. It names no files: models are published.
_RECORD = "finetune.json"
# What transformers calls the kinds of sequence classification.
_PROBLEM_TYPES = {"classification": "single_label_classification", "regression": "regression"}


@dataclass(frozen=True)
class FinetuneResult:
    """The teacher's folder, its metrics on the validation rows, and what training it took."""

    output_dir: Path
    metrics: dict[str, float]
    cost: Cost


@callers_randomness()
def finetune(
    settings: FinetuneSettings,
    progress: Any = None,
    resume: bool = False,
    note: Callable[[str], None] = lambda line: None,
) -> FinetuneResult:
    """Fine-tune a classification or causal language model; the best evaluation's weights are kept.

    Args:
        settings: of the training.
        progress: see `minidisc.resumable.ResumableTrainer`.
        resume: go on with a training for the same folder that was cut short, if there is one; of one that is finished
            the result is read again.
        note: is told, a line at a time, what is not progress.

    Raises:
        UserError: if the settings, the model, the rows or the output folder cannot be used, or a training for the same
            folder was cut short and is not to be resumed.
    """
    check_class(FinetuneSettings, settings)
    folder = Path(settings.output_dir)
    _check_new(folder, resume)
    work = training_folder(folder)
    with in_use(work):
        _check_new(folder, resume)  # another process may have just ended
        if not resume:
            _check_none_cut_short(work)
        return _finetune(settings, progress, resume, note, work)


def _check_new(folder: Path, resume: bool) -> None:
    """Refuse a folder that the model cannot take the place of, unless it may be the finished one that is resumed."""
    if not (resume and (folder / _RECORD).is_file()):
        check_new(folder)


def _check_none_cut_short(work: Path) -> None:
    """Refuse to begin anew where a training was cut short whose steps may have taken hours."""
    if (work / "run.yaml").is_file() and any(work.glob("checkpoint-*")):
        raise UserError(
            f"{work} already holds a training that was cut short; add --resume to go on with it, or delete that "
            "folder."
        )


def _finetune(
    settings: FinetuneSettings, progress: Any, resume: bool, note: Callable[[str], None], work: Path
) -> FinetuneResult:
    folder = Path(settings.output_dir)
    data = load_data(settings)
    loaded = _load(settings, data.task)
    fingerprints = {
        "model_weights": fingerprint_of(settings.model),
        "tokenizer": tokenizer_fingerprint(loaded.tokenizer),
        "rows": data.fingerprint,
    }
    if (folder / _RECORD).is_file():
        result = _finished(settings, fingerprints, work)
        note(f"{folder} is complete already.")
        return result
    train, validation = _encode(settings, data, loaded)
    if not resume and work.exists():
        remove_run(work)
    check_disk(folder, disk_of_training(settings, sum(p.numel() for p in loaded.model.parameters())), work)
    settings = settled(settings, work)
    open_run(settings, fingerprints, resume, folder=work)
    for line in trained_with(work, more=True)[1]:
        _logger.warning(line)
    trainer = _FinetuneTrainer(
        loaded.model,
        ResumableArguments(**trainer_arguments(settings, work)),
        train,
        loaded.tokenizer,
        ["teacher"],
        progress,
    )
    trainer.task, trainer.validation_rows = data.task, validation
    metrics = _train(trainer, loaded, train)
    record = {
        "run": run_key(settings, fingerprints),
        "precision": settings.precision,
        "metrics": metrics,
        "cost": asdict(trainer.cost),
    }
    with new_folder(folder) as temporary:
        if loaded.model.config.model_type.startswith(STUDENT_PREFIX):
            write_small(loaded.model, loaded.tokenizer, temporary)
        else:
            save_model(loaded.model, temporary)
            loaded.tokenizer.save_pretrained(temporary)
        write_finetuned_card(settings, data, metrics, temporary)
        write_json(temporary / _RECORD, record)
    shutil.rmtree(work)
    return FinetuneResult(folder, metrics, trainer.cost)


def _load(settings: FinetuneSettings, task: Task) -> Loaded:
    """The model with a classifier for the task's labels, new where its own is for others."""
    names = task.label_names or ("LABEL_0",)
    head: dict[str, Any] = {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
        "problem_type": _PROBLEM_TYPES.get(task.kind),
    }
    torch.manual_seed(settings.seed)  # the new classifier's weights
    return load_model(
        settings.model,
        settings.trust_remote_code,
        config=_config(settings, task),
        kind=task.kind,
        new_head=True,
        **({} if task.kind == CAUSAL_LM else head),
    )


def _encode(settings: FinetuneSettings, data: TaskData, loaded: Loaded) -> tuple[Dataset, Dataset]:
    """Training and validation rows in tokens; warns of what may not be as meant.

    Raises:
        UserError: the model does not go with them.
    """
    length = min(settings.max_length, loaded.tokenizer.model_max_length)
    check_length(loaded.model.config, length)
    note_length(loaded.model, length)
    if line := data.warning():
        _logger.warning(line)
    encoded = {}
    for split, rows in (("train", data.train), ("validation", data.validation)):
        cut = Cut()
        encoded[split] = encode_for(data.task, rows, loaded.tokenizer, settings.max_length, cut)
        check_tokens(loaded, encoded[split], data.splits[split])
        if line := cut.told(data.splits[split]):
            _logger.warning(line)
    return encoded["train"], encoded["validation"]


def _train(trainer: _FinetuneTrainer, loaded: Loaded, train: Dataset) -> dict[str, float]:
    """Train; the model has the best evaluation's weights then, whose metrics these are. Warns of a poor teacher."""
    task, labels = trainer.task, label_array(trainer.validation_rows)
    if task.kind == "regression":
        trainer.scale = scale = LabelScale.of(loaded.model, label_array(train))
        # A new head gives numbers of order one as it is; one that has been trained is to give what it gave.
        if f"{scale.name}.weight" not in loaded.fresh:
            scale.take_out()
    trainer.fit()
    loaded.model.load_state_dict(trainer.best_state(0))
    if trainer.scale is not None:
        trainer.scale.put_in()
        trainer.scale = None
        if warning := scale_warning(task, trainer.predict_validation(), labels):
            _logger.warning(warning)
    best = trainer.best[0]
    assert best is not None
    if warning := chance_warning(task, best.metrics["metric"], labels, "the teacher"):
        _logger.warning(warning)
    return best.metrics


def _finished(settings: FinetuneSettings, fingerprints: dict[str, str], work: Path) -> FinetuneResult:
    """The result of the same training, which is finished; what it may have left in ``work`` is removed.

    Raises:
        UserError: the folder holds the model of another.
    """
    folder = Path(settings.output_dir)
    try:
        record = read_json(folder / _RECORD)
        result = FinetuneResult(folder, record["metrics"], Cost(**record["cost"]))
        if settings.precision == "auto":
            settings = dataclasses.replace(settings, precision=record["precision"])
        same = record["run"] == run_key(settings, fingerprints)
    except (ValueError, KeyError, TypeError):
        same = False
    if not same:
        check_new(folder)
    left = work / "run.yaml"
    # Rather something is left over than that a training for a folder that was put elsewhere since is lost.
    if not left.is_file() or record["run"] == run_key(
        settings_from(FinetuneSettings, read_config(left)), read_fingerprints(work)
    ):
        shutil.rmtree(work)
    return result


def _config(settings: FinetuneSettings, task: Task) -> Any:
    """The model's configuration, or that of the form that T5 takes to classify sentences."""
    config = load_config(settings.model, settings.trust_remote_code)
    architecture_for(config.model_type.removeprefix(STUDENT_PREFIX))  # refuses a family that is not known
    if config.model_type != "t5" or task.kind == "token-classification":
        if settings.t5_form:
            raise UserError(
                f"--t5-form says what a plain T5 becomes to classify sentences, but the model is a "
                f"{config.model_type!r} and the task is {task.kind}; leave it out."
            )
        return config
    known = any(name.endswith("ForSequenceClassification") for name in config.architectures or ())
    form = settings.t5_form or ("encoder-decoder" if known else "encoder")
    if form == "encoder-decoder":
        return config
    # What is left out differs between the forms, and each has its own default.
    values = {name: value for name, value in config.to_dict().items() if name not in _OF_THE_WHOLE_T5}
    return {"encoder": T5EncoderConfig, "enct5": EncT5Config}[form](**values)


_OF_THE_WHOLE_T5 = (
    *("model_type", "architectures", "auto_map", "transformers_version"),
    *("is_encoder_decoder", "num_decoder_layers", "use_cache"),
)


class _FinetuneTrainer(ResumableTrainer):
    task: Task
    validation_rows: Any
    scale: LabelScale | None = None

    def train_batch(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        model.train()
        inputs, share = self.own_rows(inputs)
        labels = inputs["labels"] if self.scale is None else self.scale.numbers(inputs["labels"])
        labels = moved(labels, self.args.device)
        inputs = model_inputs(inputs, self.args.device)

        def passes(batch: tuple[dict[str, Any], Truth]) -> torch.Tensor:
            inputs, truth = batch
            loss = label_loss(Outputs(model(**inputs).logits, ()), None, truth)
            loss = loss / self.current_gradient_accumulation_steps
            self.accelerator.backward(loss)
            return loss.detach()

        batch = inputs, Truth(inputs["attention_mask"], labels, None, share)
        return self.run_passes(self.current_gradient_accumulation_steps, batch, passes)

    def predict_validation(self) -> Any:
        """What the model gives for the validation rows, in the scale of their labels."""
        logits = predict(self.model, self.validation_rows, self.data_collator, self.args.per_device_eval_batch_size)
        return logits if self.scale is None else self.scale.labels(logits)

    def score(self) -> list[dict[str, float]]:
        return [self.task.evaluate(self.predict_validation(), label_array(self.validation_rows))]
