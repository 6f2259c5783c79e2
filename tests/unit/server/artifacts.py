"""Tiny models with random but fixed weights, written as the trainer writes them."""

import json
from collections.abc import Callable
from pathlib import Path

import torch

from datahall_trainer import models
from datahall_trainer.artifact import FileEntry, Manifest, write_artifact
from datahall_trainer.preprocess import ImagePreprocess, TextPreprocess

IMAGE_CLASSES = ["circle", "square", "star", "moon"]
TEXT_CLASSES = ["bad", "good"]
SIDE = 8
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *["a", "b", "c", "d", "good", "bad", "film", "very", "the", "is", "warm", "up"],
]


def image_model(
    versions: Path, *, edit: Callable[[dict[str, torch.Tensor]], None] = lambda _: None
) -> tuple[Path, str]:
    torch.manual_seed(7)
    shape = {"channels": 1, "classes": len(IMAGE_CLASSES), "widths": [8, 16]}
    module = models.build("cnn", shape, versions)
    weights = dict(module.state_dict())
    weights["head.weight"] = weights["head.weight"] * 8  # so that scores differ visibly between images
    edit(weights)

    def manifest(files: dict[str, FileEntry]) -> Manifest:
        return Manifest(
            task="ImageClassification",
            architecture="cnn",
            classes=IMAGE_CLASSES,
            preprocess=ImagePreprocess(channels=1, height=SIDE, width=SIDE, mean=[0.5], std=[0.25]),
            model=shape,
            metrics={},
            files=files,
        )

    return write_artifact(versions, manifest=manifest, weights=weights, extra_files={})


def nan_model(versions: Path) -> tuple[Path, str]:
    """An image model whose scores are never finite."""

    def edit(weights: dict[str, torch.Tensor]) -> None:
        weights["head.bias"] = torch.full_like(weights["head.bias"], float("nan"))

    return image_model(versions, edit=edit)


def text_model(versions: Path) -> tuple[Path, str]:
    torch.manual_seed(11)
    config = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": len(WORDS),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
    }
    tokenizer = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 64}
    files = {
        "config.json": json.dumps(config).encode(),
        "tokenizer_config.json": json.dumps(tokenizer).encode(),
        "vocab.txt": "\n".join(WORDS).encode() + b"\n",
    }
    draft = versions / "draft"
    draft.mkdir(parents=True)
    for name, content in files.items():
        (draft / name).write_bytes(content)
    shape = {"classes": len(TEXT_CLASSES)}
    module = models.build("bert", shape, draft)
    weights = dict(module.state_dict())
    weights["head.weight"] = weights["head.weight"] * 100

    def manifest(entries: dict[str, FileEntry]) -> Manifest:
        return Manifest(
            task="TextClassification",
            architecture="bert",
            classes=TEXT_CLASSES,
            preprocess=TextPreprocess(max_sequence_length=32),
            model=shape,
            metrics={},
            files=entries,
        )

    return write_artifact(versions, manifest=manifest, weights=weights, extra_files=files)
