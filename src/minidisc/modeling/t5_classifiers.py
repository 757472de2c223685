"""Sentence classifiers of T5 that transformers lacks: of its encoder alone, and with one decoder layer (EncT5).

This file needs nothing but torch and transformers: a copy of it travels with every saved model, so that
``trust_remote_code=True`` loads it where minidisc (https://arxiv.org/abs/2205.14570) is not installed.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import T5Config, T5EncoderModel, T5Model, T5PreTrainedModel
from transformers.modeling_outputs import Seq2SeqSequenceClassifierOutput, SequenceClassifierOutput
from transformers.utils import can_return_tuple


class T5EncoderConfig(T5Config):
    """T5Config of a model without a decoder."""

    model_type = "t5-encoder"
    num_decoder_layers: int | None = 0
    is_encoder_decoder: bool = False
    use_cache: bool = False


class T5EncoderForSequenceClassification(T5PreTrainedModel):
    """T5's encoder, the mean of its states over the tokens, and a linear classifier.

    T5's tokenizers put nothing before a text that was trained to stand for it, and of the encoder's states the mean
    was found to represent a sentence better than the first one (Sentence-T5, arXiv 2108.08877).
    """

    config_class = T5EncoderConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.transformer = T5EncoderModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.d_model, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Logits of shape (rows, labels) from tokens of shape (rows, tokens)."""
        outputs = self.transformer(input_ids, attention_mask, inputs_embeds, **kwargs)
        states = outputs.last_hidden_state
        mask = states.new_ones(states.shape[:2]) if attention_mask is None else attention_mask.to(states.dtype)
        mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp_min(1)
        logits = self.classifier(self.dropout(mean))
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class EncT5Config(T5Config):
    """T5Config of an encoder with, if nothing is said, one decoder layer."""

    model_type = "t5-enct5"
    num_decoder_layers: int | None = 1
    use_cache: bool = False


class EncT5ForSequenceClassification(T5PreTrainedModel):
    """EncT5 (arXiv 2110.08426): T5 whose decoder reads one learnt prompt, and a linear classifier of its output."""

    config_class = EncT5Config

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.transformer = T5Model(config)
        self.prompt = nn.Embedding(1, config.d_model)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.d_model, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> Seq2SeqSequenceClassifierOutput:
        """Logits of shape (rows, labels) from tokens of shape (rows, tokens)."""
        given = input_ids if inputs_embeds is None else inputs_embeds
        assert given is not None
        prompt = self.prompt(torch.zeros(given.shape[0], 1, dtype=torch.long, device=given.device))
        outputs = self.transformer(
            input_ids,
            attention_mask,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=prompt,
            **{**kwargs, "use_cache": False},
        )
        logits = self.classifier(self.dropout(outputs.last_hidden_state[:, 0]))
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        return Seq2SeqSequenceClassifierOutput(
            loss=loss,
            logits=logits,
            decoder_hidden_states=outputs.decoder_hidden_states,
            decoder_attentions=outputs.decoder_attentions,
            cross_attentions=outputs.cross_attentions,
            encoder_last_hidden_state=outputs.encoder_last_hidden_state,
            encoder_hidden_states=outputs.encoder_hidden_states,
            encoder_attentions=outputs.encoder_attentions,
        )


CLASSIFIERS: dict[Any, Any] = {
    T5EncoderConfig: T5EncoderForSequenceClassification,
    EncT5Config: EncT5ForSequenceClassification,
}
