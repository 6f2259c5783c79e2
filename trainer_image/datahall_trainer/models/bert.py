"""A BERT encoder in Hugging Face layout with a classifier on the mean of its token vectors."""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch
from torch import Tensor, nn

from datahall_trainer.errors import BadInput
from datahall_trainer.kernels import use_own_norms


class BertConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What the classifier adds to the encoder; the encoder's own shape stays in its `config.json`."""

    classes: int

    def __post_init__(self) -> None:
        """Refuses a classifier with nothing to tell apart."""
        if self.classes < 2:
            raise ValueError("classes must be at least 2")


class BertClassifier(nn.Module):
    """Encoder, mean over the real tokens, one linear layer.

    Mean pooling, because the sentence encoders that people fine-tune were trained with it, and because it
    needs no pooler weights. No dropout: its masks would depend on how the batch is cut over ranks.
    """

    def __init__(
        self, encoder: nn.Module, config: BertConfig, *, hidden_size: int, max_positions: int
    ) -> None:
        """Puts a fresh head on `encoder`, initialised from the global random generator."""
        super().__init__()
        self.encoder = encoder
        # Tokens that the encoder can tell the places of.
        self.max_positions = max_positions
        self.head = nn.Linear(hidden_size, config.classes)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """int64 [N, T] ids and mask (1 = real token) to logits [N, classes]."""
        hidden: Tensor = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)
        logits: Tensor = self.head(pooled)
        return logits


def from_directory(directory: Path, config: BertConfig, *, pretrained: bool) -> BertClassifier:
    """A classifier on the encoder that `directory` describes.

    Args:
        directory: holds `config.json` in Hugging Face layout, and `model.safetensors` if `pretrained`.
        config: the classifier's shape.
        pretrained: read the encoder's weights from the directory, else leave them to `load_state_dict`.

    Raises:
        BadInput: files are missing or damaged, or the model is not a BERT.
    """
    from safetensors import SafetensorError
    from transformers import AutoConfig, BertModel

    try:
        encoder_config = AutoConfig.from_pretrained(str(directory), local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"config.json cannot be read: {error}") from error
    if encoder_config.model_type != "bert":
        raise BadInput(f"config.json says model_type {encoder_config.model_type!r}; only 'bert' is supported")
    encoder_config.hidden_dropout_prob = 0.0
    encoder_config.attention_probs_dropout_prob = 0.0
    if pretrained:
        try:
            encoder = BertModel.from_pretrained(
                str(directory),
                config=encoder_config,
                local_files_only=True,
                add_pooling_layer=False,
                dtype=torch.float32,
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise BadInput(f"model.safetensors cannot be read: {error}") from error
    else:
        encoder = BertModel(encoder_config, add_pooling_layer=False)
    use_own_norms(encoder)
    return BertClassifier(
        encoder,
        config,
        hidden_size=encoder_config.hidden_size,
        max_positions=encoder_config.max_position_embeddings,
    )
