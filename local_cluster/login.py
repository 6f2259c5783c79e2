"""A connection from a kubeconfig that kubeadm wrote.

It is YAML, and this room has the standard library only; but kubeadm always writes the same few lines, so looking
for the four fields is enough. Not a reader for kubeconfigs from elsewhere.
"""

from __future__ import annotations

import base64
import re
import ssl
import tempfile
from pathlib import Path

from local_cluster.errors import ClusterError
from local_cluster.rest import Rest


def connect(kubeconfig: Path) -> Rest:
    """Log in with the client certificate in `kubeconfig`."""
    text = kubeconfig.read_text()
    context = ssl.create_default_context(cadata=_decoded(text, "certificate-authority-data").decode())
    with tempfile.NamedTemporaryFile() as pair:  # `ssl` takes a client's certificate from a file only
        pair.write(_decoded(text, "client-certificate-data") + b"\n" + _decoded(text, "client-key-data"))
        pair.flush()
        context.load_cert_chain(pair.name)
    return Rest(url=_field(text, "server"), context=context)


def _field(text: str, name: str) -> str:
    found = re.search(rf"^\s*{re.escape(name)}: (\S+)$", text, flags=re.MULTILINE)
    if found is None:
        raise ClusterError(f"no {name} in a kubeconfig made by kubeadm")
    return found.group(1)


def _decoded(text: str, name: str) -> bytes:
    return base64.b64decode(_field(text, name))
