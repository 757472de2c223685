"""The test matrix: one row a family. Everything is built offline, and small."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    AlbertForTokenClassification,
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    CamembertConfig,
    CamembertForSequenceClassification,
    CamembertForTokenClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DebertaV2ForTokenClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    DistilBertForTokenClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    ElectraForTokenClassification,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma2ForSequenceClassification,
    Gemma2ForTokenClassification,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    Gemma3TextForSequenceClassification,
    GemmaConfig,
    GemmaForCausalLM,
    GemmaForSequenceClassification,
    GemmaForTokenClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2ForTokenClassification,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GPTNeoXForSequenceClassification,
    GPTNeoXForTokenClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    MistralConfig,
    MistralForCausalLM,
    MistralForSequenceClassification,
    MistralForTokenClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    ModernBertForTokenClassification,
    MPNetConfig,
    MPNetForSequenceClassification,
    MPNetForTokenClassification,
    OPTConfig,
    OPTForCausalLM,
    OPTForSequenceClassification,
    Phi3Config,
    Phi3ForCausalLM,
    Phi3ForSequenceClassification,
    Phi3ForTokenClassification,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForSequenceClassification,
    Qwen2ForTokenClassification,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3ForSequenceClassification,
    Qwen3ForTokenClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaForTokenClassification,
    SmolLM3Config,
    SmolLM3ForCausalLM,
    SmolLM3ForSequenceClassification,
    SmolLM3ForTokenClassification,
    T5Config,
    T5ForSequenceClassification,
    T5ForTokenClassification,
    T5Tokenizer,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
    XLMRobertaForTokenClassification,
)
from transformers.pytorch_utils import Conv1D

from minidisc.importance import Importance
from minidisc.modeling.t5_classifiers import (
    EncT5Config,
    EncT5ForSequenceClassification,
    T5EncoderConfig,
    T5EncoderForSequenceClassification,
)
from minidisc.subnetworks import SubnetworkSpec
from minidisc.tasks.encoding import IGNORED

LAYERS, HIDDEN, HEADS, NEURONS, VOCABULARY, LENGTH = 3, 32, 4, 48, 60, 16
PAD = 0

_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": NEURONS,
    "max_position_embeddings": LENGTH,
    "pad_token_id": PAD,
}


@dataclass(frozen=True)
class Family:
    """A row of the matrix: how to build a tiny model, and, apart from the code under test, where its parts lie."""

    name: str
    family: str
    model_class: type
    token_class: type | None
    """None where transformers has no such class."""
    build_config: Callable[..., Any]
    dropouts: tuple[str, ...] = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    token_types: int = 0
    layers: str = "encoder.layer"
    attention_output: str = "attention.output.dense"
    ffn_down: str = "output.dense"
    projections: tuple[str, ...] = ("attention.self.query", "attention.self.key", "attention.self.value")
    embeddings: str = "embeddings"
    """The module whose output the layers share."""
    tables: tuple[str, ...] = ()
    """Others that hold parameters of embeddings."""
    decoder_layers: int = 0
    """Layers of the sentence classifier's decoder."""
    decoder: str = "decoder.block"
    decoder_attention_outputs: tuple[str, ...] = ("layer.0.SelfAttention.o", "layer.1.EncDecAttention.o")
    decoder_ffn_down: str = "layer.2.DenseReluDense.wo"
    decoder_pruned: int = 10
    """Parameters of a decoder's layer that have heads or neurons in them."""
    decoder_states: bool = True
    """Whether the decoder reads tokens, whose hidden states are compared."""
    still: tuple[str, ...] = ()
    """Parameters that nothing depends on."""
    end_token: int | None = None
    """What the last token of every sentence has to be."""
    attentions: tuple[str, ...] = ("sdpa", "eager")
    """What can compute the attention; the first does when nothing is said."""
    pruned: int = 10
    """Parameters of a layer that have heads or neurons in them: in BERT weights and biases of query, key, value and
    FFN up, weights alone of attention output and FFN down."""

    head_size: int = HIDDEN // HEADS
    """Columns of the attention's output projection that belong to one head."""
    fused: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    """Linear maps that are several in one, and how their outputs are to one another."""
    interleaved: bool = False
    """Whether outputs of a linear map that is several in one alternate head by head."""
    drops_layers: bool = True
    """Whether a student can have fewer layers."""
    keeps_first: bool = False
    """Whether a student with fewer layers has the first one always."""
    per_layer: tuple[str, ...] = ()
    """The configuration's lists with an entry for each layer."""
    causal_class: Any = None
    """The family's language model, if it has one."""

    def config(self, dropout: float = 0.0, attention: str = "", **changes: Any) -> Any:
        attention = attention or self.attentions[0]
        config = self.build_config(**dict.fromkeys(self.dropouts, dropout), **changes)
        config._attn_implementation = attention
        return config

    def model(self, seed: int = 0, **changes: Any) -> Any:
        """A model in evaluation mode in which every parameter, biases and LayerNorms too, is random."""
        model = self.model_class(self.config(**changes))
        randomise(model, seed)
        return model.eval()

    def token_model(self, seed: int = 0, **changes: Any) -> Any:
        """The same with one output a token; a test of families that have none is skipped."""
        if self.token_class is None:
            pytest.skip("there is no such class")
        model = self.token_class(self.config(**changes))
        randomise(model, seed)
        return model.eval()

    def causal_model(self, seed: int = 0, **changes: Any) -> Any:
        """The same as a language model."""
        model = self.causal_class(self.config(**changes))
        randomise(model, seed)
        return model.eval()

    def inputs(self, rows: int = 4, length: int = 11, seed: int = 0, padding: bool = True) -> dict[str, torch.Tensor]:
        """Random tokens; with ``padding`` all rows but the first are shorter than ``length``."""
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(5, VOCABULARY, (rows, length), generator=generator)
        mask = torch.ones_like(ids)
        if padding:
            for row in range(1, rows):
                mask[row, int(torch.randint(3, length, (1,), generator=generator)) :] = 0
        if self.end_token is not None:
            ids[range(rows), mask.sum(1) - 1] = self.end_token
        inputs = {"input_ids": ids * mask + PAD * (1 - mask), "attention_mask": mask}
        if self.token_types:
            inputs["token_type_ids"] = torch.randint(0, self.token_types, ids.shape, generator=generator) * mask
        return inputs

    def layers_of(self, model: Any) -> list[nn.Module]:
        """The layers, first to last."""
        return list(attrgetter(self.layers)(model.base_model))

    def embedding_modules(self, model: Any) -> list[nn.Module]:
        """What holds the parameters of the embeddings."""
        return [attrgetter(path)(model.base_model) for path in (self.embeddings, *self.tables)]

    def decoder_layers_of(self, model: Any) -> list[nn.Module]:
        """The decoder's layers, first to last."""
        if not (self.decoder_layers and hasattr(model.base_model, "decoder")):
            return []
        return list(attrgetter(self.decoder)(model.base_model))

    def attention_outputs(self, model: Any) -> list[nn.Linear]:
        """For every attention the linear map that heads flow into: the encoder's, the decoder's, cross-attentions."""
        own = [attrgetter(self.attention_output)(x) for x in self.layers_of(model)]
        decoder = self.decoder_layers_of(model)
        return own + [attrgetter(path)(x) for path in self.decoder_attention_outputs for x in decoder]

    def ffn_downs(self, model: Any) -> list[nn.Linear]:
        """For every FFN the linear map that neurons flow into."""
        own = [attrgetter(self.ffn_down)(x) for x in self.layers_of(model)]
        return own + [attrgetter(self.decoder_ffn_down)(x) for x in self.decoder_layers_of(model)]

    @property
    def parts(self) -> tuple[int, int]:
        """Attentions and FFNs of the sentence classifier."""
        return LAYERS + 2 * self.decoder_layers, LAYERS + self.decoder_layers

    @property
    def all_pruned(self) -> int:
        """Parameters of the sentence classifier that have heads or neurons in them."""
        return self.pruned * LAYERS + self.decoder_pruned * self.decoder_layers

    def fit(self, spec: SubnetworkSpec) -> SubnetworkSpec:
        """A specification of ``LAYERS`` layers; a decoder's parts get the widths of the encoder's, again and again."""
        attentions, ffns = self.parts
        return dataclasses.replace(spec, heads=(spec.heads * 3)[:attentions], neurons=(spec.neurons * 3)[:ffns])

    def importance(self, seed: int) -> Importance:
        """Random scores of a sentence classifier."""
        generator = torch.Generator().manual_seed(seed)
        attentions, ffns = self.parts
        heads = torch.rand(attentions, HEADS, generator=generator)
        return Importance(heads, torch.rand(ffns, NEURONS, generator=generator))


def matrix(linear: Any, gradient: bool = False) -> torch.Tensor:
    """A linear map's weights, or their gradient, as (outputs, inputs)."""
    values = linear.weight.grad if gradient else linear.weight
    return values.T if isinstance(linear, Conv1D) else values


def training_rows(family: Family, lengths: Sequence[int], seed: int = 0) -> datasets.Dataset:
    """Encoded rows of the given lengths with one of two labels, as `minidisc.tasks.encode` makes them."""
    random = np.random.default_rng(seed)
    ids = [random.integers(5, VOCABULARY, n).tolist() for n in lengths]
    if family.end_token is not None:
        ids = [[*row[:-1], family.end_token] for row in ids]
    columns = {"input_ids": ids, "attention_mask": [[1] * n for n in lengths]}
    if family.token_types:
        columns["token_type_ids"] = [random.integers(0, family.token_types, n).tolist() for n in lengths]
    labels = random.integers(0, 2, len(lengths)).tolist()
    return datasets.Dataset.from_dict({**columns, "length": list(lengths), "label": labels})


def tagged_rows(family: Family, words: Sequence[int], tags: int = 3, seed: int = 0) -> datasets.Dataset:
    """Encoded rows of so many words, each of one to three tokens, as `minidisc.tasks.encode` makes them."""
    random = np.random.default_rng(seed)
    pieces = [random.integers(1, 4, n) for n in words]
    rows = training_rows(family, [int(p.sum()) + 2 for p in pieces], seed)
    columns = {name: rows[name][:] for name in rows.column_names}
    columns["first_tokens"] = [(np.cumsum(p) - p + 1).tolist() for p in pieces]
    columns["label"] = [random.integers(0, tags, n).tolist() for n in words]
    return datasets.Dataset.from_dict(columns)


def text_rows(family: Family, count: int, length: int = 9, seed: int = 0) -> datasets.Dataset:
    """Rows of packed text; the label of a token is the next one, as in `minidisc.tasks.encoding.pack`."""
    rows = training_rows(family, [length] * count, seed)
    columns = {name: rows[name][:] for name in rows.column_names}
    columns["label"] = [[*ids[1:], IGNORED] for ids in columns["input_ids"]]
    return datasets.Dataset.from_dict(columns)


def randomise(model: nn.Module, seed: int) -> None:
    """Random weights, biases and LayerNorms, so that nothing is hidden by zeros and ones."""
    generator = torch.Generator().manual_seed(seed)
    # Gemma's norms multiply by one more than their weights.
    centre = not type(model).__name__.startswith("Gemma")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
            if centre and "norm" in name.lower() and name.endswith("weight"):
                parameter.add_(1)


def _bert(**changes: Any) -> BertConfig:
    return BertConfig(**{**_COMMON, **changes})


def _roberta(**changes: Any) -> RobertaConfig:
    # RoBERTa's positions count from behind the padding index.
    return RobertaConfig(**{**_COMMON, "type_vocab_size": 1, "max_position_embeddings": LENGTH + 1, **changes})


def _distilbert(**changes: Any) -> DistilBertConfig:
    names = {
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
    }
    return DistilBertConfig(**{names.get(k, k): v for k, v in {**_COMMON, **changes}.items()})


def _gpt2(**changes: Any) -> GPT2Config:
    names = {
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "intermediate_size": "n_inner",
        "max_position_embeddings": "n_positions",
    }
    return GPT2Config(**{names.get(k, k): v for k, v in {**_COMMON, **changes}.items()})


def _electra(**changes: Any) -> ElectraConfig:
    return ElectraConfig(**{**_COMMON, "embedding_size": HIDDEN, **changes})


def _electra_projected(**changes: Any) -> ElectraConfig:
    return _electra(**{"embedding_size": 20, **changes})


def _xlm_roberta(**changes: Any) -> XLMRobertaConfig:
    return XLMRobertaConfig(**{**_COMMON, "type_vocab_size": 1, "max_position_embeddings": LENGTH + 1, **changes})


def _camembert(**changes: Any) -> CamembertConfig:
    return CamembertConfig(**{**_COMMON, "type_vocab_size": 1, "max_position_embeddings": LENGTH + 1, **changes})


def _mpnet(**changes: Any) -> MPNetConfig:
    # MPNet's padding index is always 1, and positions count from behind it.
    return MPNetConfig(**{**_COMMON, "max_position_embeddings": LENGTH + 2, **changes})


def _modernbert(**changes: Any) -> ModernBertConfig:
    # Layers of both kinds, and windows that are shorter than the rows.
    kinds = {"layer_types": ["full_attention", "sliding_attention", "sliding_attention"], "local_attention": 6}
    special = {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    return ModernBertConfig(**{**_COMMON, **kinds, **special, **changes})


def _modernbert_with_biases(**changes: Any) -> ModernBertConfig:
    biases = dict.fromkeys(("attention_bias", "mlp_bias", "norm_bias", "classifier_bias"), True)
    return _modernbert(**{**biases, "classifier_pooling": "mean", **changes})


def _deberta_v2(**changes: Any) -> DebertaV2Config:
    """Positions have projections of their own, and a convolution follows the first layer."""
    relative = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "max_relative_positions": 9}
    return DebertaV2Config(**{**_COMMON, **relative, "conv_kernel_size": 3, "type_vocab_size": 2, **changes})


def _deberta_v3(**changes: Any) -> DebertaV2Config:
    """Positions share the projections of tokens, count in buckets, and are not in the embeddings."""
    settings = {
        "relative_attention": True,
        "pos_att_type": "p2c|c2p",
        "share_att_key": True,
        "position_buckets": 4,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
    }
    return DebertaV2Config(**{**_COMMON, **settings, **changes})


def _albert(**changes: Any) -> AlbertConfig:
    # One more layer than groups: the first group's layer runs twice.
    shared = {"num_hidden_layers": LAYERS + 1, "num_hidden_groups": LAYERS, "embedding_size": 20}
    return AlbertConfig(**{**_COMMON, **shared, **changes})


# What is pruned as one head is a key head with the query heads that share it.
_TWO_QUERIES = {"num_attention_heads": 2 * HEADS, "num_key_value_heads": HEADS}
# A window that is shorter than the rows.
_WINDOW = {"sliding_window": 6}


def _llama(**changes: Any) -> LlamaConfig:
    return LlamaConfig(**{**_COMMON, **_TWO_QUERIES, **changes})


def _llama_multi_head(**changes: Any) -> LlamaConfig:
    """Every query head has its own key head, and everything that may have a bias has one."""
    return LlamaConfig(**{**_COMMON, "attention_bias": True, "mlp_bias": True, **changes})


def _mistral(**changes: Any) -> MistralConfig:
    # Query heads that together are wider than the hidden size.
    return MistralConfig(**{**_COMMON, **_TWO_QUERIES, **_WINDOW, "head_dim": 6, **changes})


def _qwen2(**changes: Any) -> Qwen2Config:
    # Layers of both kinds.
    windows = {**_WINDOW, "use_sliding_window": True, "max_window_layers": 1}
    return Qwen2Config(**{**_COMMON, **_TWO_QUERIES, **windows, **changes})


def _qwen3(**changes: Any) -> Qwen3Config:
    heads = {"num_attention_heads": 4 * HEADS, "num_key_value_heads": HEADS, "head_dim": 4}
    kinds = {**_WINDOW, "use_sliding_window": True}
    kinds["layer_types"] = ["sliding_attention", "full_attention", "sliding_attention"]
    return Qwen3Config(**{**_COMMON, **heads, **kinds, **changes})


def _smollm3(**changes: Any) -> SmolLM3Config:
    # No turning by the position, both that and a window, a window.
    kinds = {**_WINDOW, "use_sliding_window": True, "no_rope_layers": [0, 0, 1]}
    kinds["layer_types"] = ["full_attention", "sliding_attention", "sliding_attention"]
    biases = {"attention_bias": True, "mlp_bias": True}
    special = {"bos_token_id": 2, "eos_token_id": 3}
    return SmolLM3Config(**{**_COMMON, **_TWO_QUERIES, **kinds, **biases, **special, **changes})


def _gemma(**changes: Any) -> GemmaConfig:
    # Query heads that together are wider than the hidden size.
    return GemmaConfig(**{**_COMMON, **_TWO_QUERIES, "head_dim": 6, "attention_bias": True, **changes})


# Norms behind attention and FFN would make any rounding in what few neurons add as large as the rest.
_NORM_BEHIND = {"rms_norm_eps": 0.01}


def _gemma2(**changes: Any) -> Gemma2Config:
    # Query heads that together are wider than the hidden size; scores that are capped; layers of both kinds.
    scores = {"attn_logit_softcapping": 0.5, "query_pre_attn_scalar": 3, "attention_bias": True}
    # In double precision eager attention makes NaN of padding whose window has no token.
    heads = {**_TWO_QUERIES, "head_dim": 6, "sliding_window": 10}
    return Gemma2Config(**{**_COMMON, **heads, **_NORM_BEHIND, **scores, **changes})


def _gemma3(**changes: Any) -> Gemma3TextConfig:
    heads = {"num_attention_heads": 4 * HEADS, "num_key_value_heads": HEADS, "head_dim": 4}
    kinds = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
    return Gemma3TextConfig(**{**_COMMON, **heads, **_WINDOW, **_NORM_BEHIND, **kinds, **changes})


def _phi3(**changes: Any) -> Phi3Config:
    # Part of a head's dimensions are not turned by the position.
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}
    special = {"bos_token_id": 2, "eos_token_id": 3}
    return Phi3Config(**{**_COMMON, **_TWO_QUERIES, **_WINDOW, **rope, **special, **changes})


def _gpt_neox(**changes: Any) -> GPTNeoXConfig:
    return GPTNeoXConfig(**{**_COMMON, **changes})


def _gpt_neox_sequential(**changes: Any) -> GPTNeoXConfig:
    """The FFN sees what attention has added, and attention has no biases."""
    return _gpt_neox(**{"use_parallel_residual": False, "attention_bias": False, **changes})


def _opt(**changes: Any) -> OPTConfig:
    names = {"intermediate_size": "ffn_dim"}
    # ReLU would leave some neurons at 0 for all tokens, and these learn nothing.
    values = {**_COMMON, "activation_function": "gelu", **changes}
    return OPTConfig(**{names.get(k, k): v for k, v in values.items()})


def _opt_projected(**changes: Any) -> OPTConfig:
    """As the one of 350 M parameters: norms come last, and embeddings are narrower than the layers."""
    return _opt(**{"do_layer_norm_before": False, "word_embed_proj_dim": 20, "enable_bias": False, **changes})


def _t5_values(**changes: Any) -> dict[str, Any]:
    names = {
        "hidden_size": "d_model",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "intermediate_size": "d_ff",
    }
    # Heads that together are narrower than the hidden size, and rows that are longer than the nearest buckets.
    own = {"d_kv": 6, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 10}
    special = {"eos_token_id": 3, "decoder_start_token_id": PAD, "num_decoder_layers": 2}
    values = {names.get(k, k): v for k, v in {**_COMMON, **own, **special, **changes}.items()}
    return {k: v for k, v in values.items() if k != "max_position_embeddings"}


def _t5(**changes: Any) -> T5Config:
    return T5Config(**_t5_values(**changes))


def _t5_encoder(**changes: Any) -> T5EncoderConfig:
    return T5EncoderConfig(**_t5_values(feed_forward_proj="gated-gelu", **changes))


def _enct5(**changes: Any) -> EncT5Config:
    return EncT5Config(**_t5_values(feed_forward_proj="gated-gelu", **{"num_decoder_layers": 1, **changes}))


BERT = Family("bert", "bert", BertForSequenceClassification, BertForTokenClassification, _bert, token_types=2)
ROBERTA = Family("roberta", "roberta", RobertaForSequenceClassification, RobertaForTokenClassification, _roberta)
DISTILBERT = Family(
    "distilbert",
    "distilbert",
    DistilBertForSequenceClassification,
    DistilBertForTokenClassification,
    _distilbert,
    dropouts=("dropout", "attention_dropout", "seq_classif_dropout"),
    layers="transformer.layer",
    attention_output="attention.out_lin",
    projections=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    ffn_down="ffn.lin2",
)
ELECTRA = Family(
    "electra", "electra", ElectraForSequenceClassification, ElectraForTokenClassification, _electra, token_types=2
)
ELECTRA_PROJECTED = Family(
    "electra-projected",
    "electra",
    ElectraForSequenceClassification,
    ElectraForTokenClassification,
    _electra_projected,
    token_types=2,
)

XLM_ROBERTA = Family(
    "xlm-roberta",
    "xlm-roberta",
    XLMRobertaForSequenceClassification,
    XLMRobertaForTokenClassification,
    _xlm_roberta,
)
CAMEMBERT = Family(
    "camembert", "camembert", CamembertForSequenceClassification, CamembertForTokenClassification, _camembert
)
MPNET = Family(
    "mpnet",
    "mpnet",
    MPNetForSequenceClassification,
    MPNetForTokenClassification,
    _mpnet,
    attention_output="attention.attn.o",
    projections=("attention.attn.q", "attention.attn.k", "attention.attn.v"),
    attentions=("eager",),
)
MODERNBERT = Family(
    "modernbert",
    "modernbert",
    ModernBertForSequenceClassification,
    ModernBertForTokenClassification,
    _modernbert,
    dropouts=("attention_dropout", "mlp_dropout", "embedding_dropout", "classifier_dropout"),
    layers="layers",
    attention_output="attn.Wo",
    projections=("attn.Wqkv",),
    ffn_down="mlp.Wo",
    pruned=4,
    fused={"Wqkv": (1, 1, 1), "Wi": (1, 1)},
    keeps_first=True,
    per_layer=("layer_types",),
)
MODERNBERT_WITH_BIASES = dataclasses.replace(
    MODERNBERT, name="modernbert-biases", build_config=_modernbert_with_biases, pruned=6
)
DEBERTA_V2 = Family(
    "deberta-v2",
    "deberta-v2",
    DebertaV2ForSequenceClassification,
    DebertaV2ForTokenClassification,
    _deberta_v2,
    token_types=2,
    projections=("attention.self.query_proj", "attention.self.key_proj", "attention.self.value_proj"),
    attentions=("eager",),
    pruned=14,
)
DEBERTA_V3 = dataclasses.replace(DEBERTA_V2, name="deberta-v3", build_config=_deberta_v3, token_types=0, pruned=10)
ALBERT = Family(
    "albert",
    "albert",
    AlbertForSequenceClassification,
    AlbertForTokenClassification,
    _albert,
    dropouts=("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob"),
    token_types=2,
    layers="encoder.albert_layer_groups",
    attention_output="albert_layers.0.attention.dense",
    projections=tuple(f"albert_layers.0.attention.{name}" for name in ("query", "key", "value")),
    ffn_down="albert_layers.0.ffn_output",
    drops_layers=False,
)
LLAMA = Family(
    "llama",
    "llama",
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    _llama,
    causal_class=LlamaForCausalLM,
    dropouts=("attention_dropout",),
    layers="layers",
    attention_output="self_attn.o_proj",
    projections=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ffn_down="mlp.down_proj",
    embeddings="embed_tokens",
    pruned=7,
)
LLAMA_MULTI_HEAD = dataclasses.replace(LLAMA, name="llama-multi-head", build_config=_llama_multi_head, pruned=12)
MISTRAL = dataclasses.replace(
    LLAMA,
    name="mistral",
    family="mistral",
    model_class=MistralForSequenceClassification,
    token_class=MistralForTokenClassification,
    causal_class=MistralForCausalLM,
    build_config=_mistral,
    head_size=2 * 6,
)
QWEN2 = dataclasses.replace(
    LLAMA,
    name="qwen2",
    family="qwen2",
    model_class=Qwen2ForSequenceClassification,
    token_class=Qwen2ForTokenClassification,
    causal_class=Qwen2ForCausalLM,
    build_config=_qwen2,
    pruned=10,
    per_layer=("layer_types",),
)
QWEN3 = dataclasses.replace(
    LLAMA,
    name="qwen3",
    family="qwen3",
    model_class=Qwen3ForSequenceClassification,
    token_class=Qwen3ForTokenClassification,
    causal_class=Qwen3ForCausalLM,
    build_config=_qwen3,
    head_size=4 * 4,
    per_layer=("layer_types",),
)
SMOLLM3 = dataclasses.replace(
    LLAMA,
    name="smollm3",
    family="smollm3",
    model_class=SmolLM3ForSequenceClassification,
    token_class=SmolLM3ForTokenClassification,
    causal_class=SmolLM3ForCausalLM,
    build_config=_smollm3,
    pruned=12,
    per_layer=("layer_types", "no_rope_layers"),
)
GEMMA = dataclasses.replace(
    LLAMA,
    name="gemma",
    family="gemma",
    model_class=GemmaForSequenceClassification,
    token_class=GemmaForTokenClassification,
    causal_class=GemmaForCausalLM,
    build_config=_gemma,
    head_size=2 * 6,
    pruned=10,
)
GEMMA2 = dataclasses.replace(
    LLAMA,
    name="gemma2",
    family="gemma2",
    model_class=Gemma2ForSequenceClassification,
    causal_class=Gemma2ForCausalLM,
    token_class=Gemma2ForTokenClassification,
    build_config=_gemma2,
    # transformers offers no other, as torch's own cannot cap the scores.
    attentions=("eager",),
    head_size=2 * 6,
    pruned=10,
    per_layer=("layer_types",),
)
GEMMA3 = dataclasses.replace(
    LLAMA,
    name="gemma3",
    family="gemma3_text",
    model_class=Gemma3TextForSequenceClassification,
    causal_class=Gemma3ForCausalLM,
    token_class=None,
    build_config=_gemma3,
    head_size=4 * 4,
    per_layer=("layer_types",),
)
PHI3 = dataclasses.replace(
    LLAMA,
    name="phi3",
    family="phi3",
    model_class=Phi3ForSequenceClassification,
    causal_class=Phi3ForCausalLM,
    token_class=Phi3ForTokenClassification,
    build_config=_phi3,
    dropouts=("attention_dropout", "resid_pdrop"),
    projections=("self_attn.qkv_proj",),
    pruned=4,
    fused={"qkv_proj": (2, 1, 1), "gate_up_proj": (1, 1)},
)
GPT2 = Family(
    "gpt2",
    "gpt2",
    GPT2ForSequenceClassification,
    GPT2ForTokenClassification,
    _gpt2,
    causal_class=GPT2LMHeadModel,
    dropouts=("resid_pdrop", "embd_pdrop", "attn_pdrop", "classifier_dropout"),
    # Token types are embedded as if they were tokens.
    token_types=2,
    layers="h",
    attention_output="attn.c_proj",
    projections=("attn.c_attn",),
    ffn_down="mlp.c_proj",
    embeddings="drop",
    tables=("wte", "wpe"),
    pruned=6,
    fused={"c_attn": (1, 1, 1)},
)
GPT_NEOX = Family(
    "gpt-neox",
    "gpt_neox",
    GPTNeoXForSequenceClassification,
    GPTNeoXForTokenClassification,
    _gpt_neox,
    causal_class=GPTNeoXForCausalLM,
    dropouts=("hidden_dropout", "attention_dropout", "classifier_dropout"),
    layers="layers",
    attention_output="attention.dense",
    projections=("attention.query_key_value",),
    ffn_down="mlp.dense_4h_to_h",
    embeddings="embed_in",
    pruned=6,
    interleaved=True,
)
GPT_NEOX_SEQUENTIAL = dataclasses.replace(
    GPT_NEOX, name="gpt-neox-sequential", build_config=_gpt_neox_sequential, pruned=5
)
OPT = Family(
    "opt",
    "opt",
    OPTForSequenceClassification,
    None,
    _opt,
    causal_class=OPTForCausalLM,
    dropouts=("dropout", "attention_dropout"),
    layers="decoder.layers",
    attention_output="self_attn.out_proj",
    projections=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ffn_down="fc2",
    embeddings="decoder.embed_tokens",
    tables=("decoder.embed_positions",),
)
OPT_PROJECTED = dataclasses.replace(OPT, name="opt-projected", build_config=_opt_projected, pruned=6)
T5 = Family(
    "t5",
    "t5",
    T5ForSequenceClassification,
    T5ForTokenClassification,
    _t5,
    dropouts=("dropout_rate", "classifier_dropout"),
    layers="encoder.block",
    attention_output="layer.0.SelfAttention.o",
    projections=tuple(f"layer.0.SelfAttention.{name}" for name in "qkv"),
    ffn_down="layer.1.DenseReluDense.wo",
    embeddings="encoder.embed_tokens",
    pruned=6,
    head_size=6,
    decoder_layers=2,
    end_token=3,
    drops_layers=False,
)
T5_ENCODER = dataclasses.replace(
    T5,
    name="t5-encoder",
    family="t5-encoder",
    model_class=T5EncoderForSequenceClassification,
    token_class=None,
    build_config=_t5_encoder,
    pruned=7,
    decoder_layers=0,
    end_token=None,
    drops_layers=True,
    keeps_first=True,
)
ENCT5 = dataclasses.replace(
    T5,
    name="enct5",
    family="t5-enct5",
    model_class=EncT5ForSequenceClassification,
    token_class=None,
    build_config=_enct5,
    pruned=7,
    decoder_layers=1,
    decoder_pruned=11,
    decoder_states=False,
    # A single token is at no distance from any other.
    still=("decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",),
    end_token=None,
)

MATRIX = [
    BERT,
    ROBERTA,
    DISTILBERT,
    ELECTRA,
    ELECTRA_PROJECTED,
    XLM_ROBERTA,
    CAMEMBERT,
    MPNET,
    MODERNBERT,
    MODERNBERT_WITH_BIASES,
    DEBERTA_V2,
    DEBERTA_V3,
    ALBERT,
    LLAMA,
    LLAMA_MULTI_HEAD,
    MISTRAL,
    QWEN2,
    QWEN3,
    SMOLLM3,
    GEMMA,
    GEMMA2,
    GEMMA3,
    PHI3,
    GPT2,
    GPT_NEOX,
    GPT_NEOX_SEQUENTIAL,
    OPT,
    OPT_PROJECTED,
    T5,
    T5_ENCODER,
    ENCT5,
]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Whole words; ``[PAD]`` is 0, and the words are ``w5`` … ``w59``."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = special + [f"w{i}" for i in range(len(special), VOCABULARY)]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=LENGTH,
    )


def t5_tokenizer() -> T5Tokenizer:
    """T5's own class, to which ``</s>`` (1) and the other special tokens are pieces of words like any others."""
    pieces = ["▁", *"</s>finewarmpl", "▁fine", "▁warm", "▁plot"]
    special = ["<pad>", "</s>", "<unk>"], ["<extra_id_1>", "<extra_id_0>"]
    scored = [(piece, -3.0) for piece in dict.fromkeys(pieces)]
    return T5Tokenizer(vocab=[(s, 0.0) for s in special[0]] + scored + [(s, 0.0) for s in special[1]], extra_ids=2)
