"""Tiny data sets, job configurations, and gangs of real processes."""

import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datahall_trainer.place import free_port

UID = "uid-1"
DEFAULTS: dict[str, Any] = {
    "job": {"name": "tiny", "namespace": "team-a", "uid": UID},
    "task": "ImageClassification",
    "model": {"base": None, "architecture": "cnn", "freezeBase": False},
    "data": {
        "train": "pvc://data/shapes",
        "validation": None,
        "validationFraction": 0.25,
        "augment": {"rotateDegrees": 10.0, "translatePixels": 1},
    },
    "training": {
        "epochs": 2,
        "maxSteps": None,
        "batchSize": 8,
        "learningRate": "5e-3",
        "weightDecay": "0.01",
        "warmupFraction": 0.1,
        "maxSequenceLength": 16,
        "precision": "fp32",
        "seed": 7,
    },
    "strategy": "AllReduce",
    "checkpoint": {"everySteps": 5, "keep": 2},
    "output": {"uri": "pvc://models/tiny", "formats": ["safetensors"]},
}


@pytest.fixture
def job() -> Callable[..., dict[str, Any]]:
    """A job's configuration; `job(training={"epochs": 3})` changes fields in place."""

    def build(**changes: Any) -> dict[str, Any]:
        config = copy.deepcopy(DEFAULTS)
        for section, values in changes.items():
            if isinstance(values, dict) and isinstance(config.get(section), dict):
                config[section].update(values)
            else:
                config[section] = values
        return config

    return build


def write_shapes(directory: Path, *, classes: int = 3, per_class: int = 16, side: int = 12) -> None:
    """Bright bars at places that tell the class, under seeded noise."""
    random = np.random.default_rng(3)
    for label in range(classes):
        folder = directory / str(label)
        folder.mkdir(parents=True)
        for number in range(per_class):
            pixels = random.integers(0, 60, (side, side), dtype=np.uint8)
            row = 1 + label * (side - 3) // max(1, classes - 1)
            pixels[row : row + 2] += 180
            Image.fromarray(pixels).save(folder / f"{number:03d}.png")


@pytest.fixture
def pvc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The mount root, with the tiny images at pvc://data/shapes."""
    root = tmp_path / "pvc"
    write_shapes(root / "data" / "shapes")
    (root / "models").mkdir()
    monkeypatch.setenv("DATAHALL_PVC_ROOT", str(root))
    return root


class Zygote:
    """The other end of `zygote.py`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("zygote.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **request: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    process = Zygote()
    yield process
    process.close()


class Gang:
    """The ranks of one generation of a job, one process each."""

    def __init__(self, zygote: Zygote, directory: Path, root: Path) -> None:
        self._zygote = zygote
        self._directory = directory
        self._root = root
        self.generation = 0
        self._pids: list[int] = []
        self._codes: dict[int, int] = {}

    def start(
        self, config: dict[str, Any] | str, *, ranks: int = 2, generation: int | None = None, **env: str
    ):
        """Begins the next generation."""
        self.generation = generation or self.generation + 1
        self._codes = {}
        port = free_port()
        text = config if isinstance(config, str) else json.dumps(config)
        self._pids = []
        for rank in range(ranks):
            message = self.place(rank, "message")
            message.unlink(missing_ok=True)
            environment = {
                "DATAHALL_JOB_CONFIG": text,
                "DATAHALL_GENERATION": str(self.generation),
                "DATAHALL_PVC_ROOT": str(self._root),
                "DATAHALL_TERMINATION_LOG": str(message),
                "DATAHALL_SIMULATED_GPU": "1",
                "DATAHALL_COLLECTIVE_TIMEOUT_SECONDS": "60",
                "PET_NNODES": str(ranks),
                "PET_NODE_RANK": str(rank),
                "PET_NPROC_PER_NODE": "1",
                "PET_MASTER_ADDR": "127.0.0.1",
                "PET_MASTER_PORT": str(port),
                **env,
            }
            request = {
                "env": environment,
                "stdout": str(self.place(rank, "stdout")),
                "stderr": str(self.place(rank, "stderr")),
            }
            self._pids.append(self._zygote.ask(start=request))
        return self

    def place(self, rank: int, kind: str) -> Path:
        return self._directory / f"g{self.generation}-r{rank}.{kind}"

    def kill(self, rank: int, number: int = signal.SIGKILL) -> None:
        self._zygote.ask(kill=[self._pids[rank], int(number)])

    def wait(self, seconds: float = 120) -> list[int]:
        """Exit codes by rank."""
        deadline = time.monotonic() + seconds
        while len(self._codes) < len(self._pids):
            for rank, pid in enumerate(self._pids):
                if rank not in self._codes and (code := self._zygote.ask(poll=pid)) is not None:
                    self._codes[rank] = code
            if time.monotonic() > deadline:
                self.stop()
                pytest.fail(f"ranks still run after {seconds} s\n{self.logs()}")
            time.sleep(0.02)
        return [self._codes[rank] for rank in range(len(self._pids))]

    def await_end(self, rank: int, seconds: float) -> None:
        """Wait until one rank has ended."""
        deadline = time.monotonic() + seconds
        while (code := self._zygote.ask(poll=self._pids[rank])) is None:
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.02)
        self._codes[rank] = code

    def running(self) -> bool:
        for rank, pid in enumerate(self._pids):
            if rank not in self._codes and (code := self._zygote.ask(poll=pid)) is not None:
                self._codes[rank] = code
        return len(self._codes) < len(self._pids)

    def stop(self) -> None:
        for rank in range(len(self._pids)):
            if rank not in self._codes:
                self.kill(rank)
                while (code := self._zygote.ask(poll=self._pids[rank])) is None:
                    time.sleep(0.02)
                self._codes[rank] = code

    def message(self, rank: int = 0) -> dict[str, Any]:
        return json.loads(self.place(rank, "message").read_text())

    def text(self, rank: int, kind: str = "stderr") -> str:
        """What a rank wrote so far; a rank that has only just been forked may not have opened the file yet."""
        place = self.place(rank, kind)
        return place.read_text() if place.exists() else ""

    def logs(self) -> str:
        return "\n".join(self.text(rank) for rank in range(len(self._pids)))

    def await_file(self, pattern: str, seconds: float = 120) -> Path:
        """The first file under the mount root that matches, as soon as it exists."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := sorted(self._root.glob(pattern)):
                return found[0]
            assert self.running(), self.logs()
            time.sleep(0.005)
        raise AssertionError(f"no {pattern}\n{self.logs()}")


@pytest.fixture
def gang(zygote: Zygote, tmp_path: Path, pvc: Path) -> Iterator[Gang]:
    directory = tmp_path / "gang"
    directory.mkdir()
    group = Gang(zygote, directory, pvc)
    yield group
    group.stop()


@pytest.fixture
def tiny_bert(pvc: Path) -> str:
    """URI of a BERT of 2 layers of 32 with a tokenizer of a few words, in Hugging Face layout."""
    import torch
    from transformers import BertConfig, BertModel

    directory = pvc / "data" / "tiny-bert"
    directory.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "a", "very", "plot", "is"]
    (directory / "vocab.txt").write_text("\n".join(words) + "\n")
    (directory / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 32})
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(directory)
    return "pvc://data/tiny-bert"


@pytest.fixture
def write_reviews() -> Callable[..., None]:
    def write(path: Path, *, count: int = 48) -> None:
        random = np.random.default_rng(1)
        lines = ["text,label"]
        for number in range(count):
            word, label = (("good", "positive"), ("bad", "negative"))[number % 2]
            filler = " ".join(random.choice(["film", "plot", "is", "a", "very"], int(random.integers(1, 8))))
            lines.append(f"{filler} {word},{label}")
        path.write_text("\n".join(lines) + "\n")

    return write


@pytest.fixture(autouse=True)
def _quiet_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    os.environ.pop("OMP_NUM_THREADS", None)
