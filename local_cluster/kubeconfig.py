"""Kubeconfig files. Written as JSON, which is YAML too, so that no YAML library is needed."""

from __future__ import annotations

import base64
import json
from pathlib import Path


def render(*, url: str, ca: bytes, token: str, user: str = "admin") -> str:
    """A kubeconfig that logs in with a bearer token; certificates inside, so that the file can be copied anywhere."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "datahall",
                    "cluster": {"server": url, "certificate-authority-data": base64.b64encode(ca).decode()},
                }
            ],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [
                {"name": "datahall", "context": {"cluster": "datahall", "user": user, "namespace": "default"}}
            ],
            "current-context": "datahall",
        },
        indent=1,
    )


def write(path: Path, text: str) -> Path:
    """Write it for the owner's eyes only: it holds a credential."""
    path.touch(mode=0o600)
    path.write_text(text)
    return path
