"""`pvc://CLAIM/PATH`: the names that specs use for files, and where this container finds them."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from datahall_trainer.errors import BadInput

_SCHEME = "pvc://"
_DEFAULT_ROOT = "/mnt/pvc"


def resolve(uri: str) -> Path:
    """The path of `pvc://CLAIM/PATH` in this container.

    Claims are mounted under `/mnt/pvc`; `DATAHALL_PVC_ROOT` names another root for local runs and tests.

    Args:
        uri: a `pvc://CLAIM/PATH`; PATH may be empty, which is the root of the claim.

    Raises:
        BadInput: another scheme, no claim, or a path that leaves the claim by `..`.
    """
    if not uri.startswith(_SCHEME):
        raise BadInput(f"{uri}: not a pvc://CLAIM/PATH")
    claim, _, path = uri.removeprefix(_SCHEME).partition("/")
    if not claim or claim in {".", ".."}:
        raise BadInput(f"{uri}: names no claim; the form is pvc://CLAIM/PATH")
    relative = PurePosixPath(path.lstrip("/"))
    if ".." in relative.parts:
        raise BadInput(f"{uri}: must not leave its claim by '..'")
    return Path(os.environ.get("DATAHALL_PVC_ROOT", _DEFAULT_ROOT)) / claim / relative


def child(uri: str, *parts: str) -> str:
    """The URI of something below `uri`."""
    return "/".join([uri.rstrip("/"), *parts])
