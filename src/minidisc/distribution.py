"""How one model is trained by several processes: who takes which rows, and how gradients and weights come together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from minidisc import ranks
from minidisc.layers import state_to_save, whole_state
from minidisc.losses import Share

_BUCKET = 25 * 2**20  # bytes of gradients that are sent together, as in torch's DistributedDataParallel


Counts = tuple[float, float, float]
"""Rows, tokens and labels."""


def mean_counts(batches: Sequence[dict[str, Tensor]]) -> Counts:
    """How many rows, tokens and labels (no fewer than one) a batch of these has on average."""
    counts = zip(*map(_counts, batches), strict=True)
    rows, tokens, labels = (sum(each) / len(batches) for each in counts)
    return rows, tokens, labels or 1.0


def own_rows(batch: dict[str, Tensor], mean: Counts | None = None) -> tuple[dict[str, Tensor], Share]:
    """The rows of a step's batch that this process trains, and what they count for.

    A batch of fewer rows than processes leaves some without any; these train a row that counts nothing, so that all
    wait for each other equally often.

    Args:
        batch: tensors with the rows first, among them ``attention_mask`` and perhaps ``labels``, negative where a
            token has none.
        mean: `mean_counts` of the step's batches, where it has several.
    """
    rank, size = ranks.rank(), ranks.world_size()
    if size == 1 and mean is None:
        return batch, Share()
    mine = {name: values[rank::size] for name, values in batch.items()}
    if not len(mine["attention_mask"]):
        return {name: values[:1] for name, values in batch.items()}, Share(0.0, 0.0, 0.0)
    pairs = zip(_counts(mine), mean or mean_counts([batch]), strict=True)
    return mine, Share(*(size * own / all_of_batch for own, all_of_batch in pairs))


def _counts(batch: dict[str, Tensor]) -> Counts:
    mask = batch["attention_mask"]
    labels = (batch["labels"] >= 0).sum().item() if "labels" in batch else 0
    return len(mask), mask.sum().item(), labels


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Make every gradient the mean over all processes, which must have gradients of the same parameters.

    Each is sent once. The reducer of DistributedDataParallel would not do: it counts on one backward pass that reaches
    every parameter once, and in a sandwich there are several, some of which reach the embeddings again.
    """
    bucket: list[Tensor] = []
    for gradient in (p.grad for p in parameters if p.grad is not None):
        if bucket and (gradient.dtype != bucket[0].dtype or sum(g.nbytes for g in bucket) + gradient.nbytes > _BUCKET):
            _average(bucket)
            bucket = []
        bucket.append(gradient)
    if bucket:
        _average(bucket)


def _average(gradients: list[Tensor]) -> None:
    # Not ReduceOp.AVG, which gloo lacks.
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat)
    flat /= ranks.world_size()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def prepare_engine(accelerator: Any, model: nn.Module, layers: Iterable[nn.Module]) -> None:
    """Make FSDP or DeepSpeed, where one is on, and the model that it will get ready for each other."""
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is not None:
        # By itself accelerate shards every module that transformers would not split, and in BERT one lies in another.
        plugin.transformer_cls_names_to_wrap = sorted({type(layer).__name__ for layer in layers})
        _hide_empty(model)
        _hide_shared_embeddings(model)
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    if plugin is not None:
        # transformers would otherwise shard every model that this process builds from now on, students too.
        unset_hf_deepspeed_config()
        zero = plugin.deepspeed_config["zero_optimization"]
        # Without it the weights could not be written; so it is not left to whoever wrote the configuration.
        zero["stage3_gather_16bit_weights_on_model_save"] = True
        # DeepSpeed's own linear map, which it would put in the place of torch's for good, fails in an empty layer.
        zero["memory_efficient_linear"] = False
        if plugin.deepspeed_config["bf16"]["enabled"]:
            # Its bf16 is that of the weights too, and so of the files; this is what bf16 is without an engine.
            plugin.deepspeed_config["bf16"]["enabled"] = False
            plugin.deepspeed_config["torch_autocast"] = {
                "enabled": True,
                "dtype": "bfloat16",
                "lower_precision_safe_modules": [],  # whose gradients would be sent in bf16
            }
        _hide_empty(model)


def _hide_shared_embeddings(model: Any) -> None:
    """Let accelerate find no embeddings where several modules have the same: it would shard one apart from the others.

    T5's encoder and decoder do; they are then sharded with what lies in no layer.
    """
    weight = model.get_input_embeddings().weight
    if sum(isinstance(module, nn.Embedding) and module.weight is weight for module in model.modules()) > 1:
        model.get_input_embeddings = lambda: None


def _hide_empty(model: nn.Module) -> None:
    """Make parameters without numbers buffers, of the same names.

    FSDP2 fails at the gradient of such a parameter, DeepSpeed at a linear map that has nothing else.
    """
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if not parameter.numel():
                delattr(module, name)
                module.register_buffer(name, parameter.detach())


@contextmanager
def partial_moments() -> Iterator[None]:
    """Within the block FSDP2 restores an optimiser that has kept nothing for some weights; otherwise it fails at that.

    They are weights that no pass reaches: in some families the norm before an attention without heads.
    """
    from accelerate.utils import fsdp_utils

    options_of = fsdp_utils._prepare_sd_options

    def lenient(plugin: Any) -> Any:
        options = options_of(plugin)
        return options and replace(options, strict=False)

    fsdp_utils._prepare_sd_options = lenient
    try:
        yield
    finally:
        fsdp_utils._prepare_sd_options = options_of


def weights_to_save(model: nn.Module, accelerator: Any) -> dict[str, Tensor]:
    """What `minidisc.layers.state_to_save` gives, also of a model of which each process holds a part.

    All processes have to call it; the weights of such a model are handed to rank 0 alone.

    Args:
        model: whole, or sharded by FSDP2 or by DeepSpeed.
        accelerator: accelerate's, which has sharded it.
    """
    if isinstance(model, FSDPModule):
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        return state_to_save(model, cast(dict[str, Tensor], get_model_state_dict(model, options=options)))
    engine = getattr(accelerator, "deepspeed_engine_wrapped", None)
    if engine is not None:
        return state_to_save(model, accelerator.get_state_dict(engine.engine) or {})
    return state_to_save(model)


def load_weights(model: nn.Module, saved: dict[str, Tensor]) -> None:
    """Put what `weights_to_save` gave into a model like that one, whole or sharded by FSDP2."""
    state = whole_state(model, saved)
    if not isinstance(model, FSDPModule):
        model.load_state_dict(state)
        return
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    set_model_state_dict(model, dict[str, Any](state), options=StateDictOptions(full_state_dict=True))
