"""Keys and certificates of an API-mode control plane, by the `openssl` program.

The full cluster has its PKI from kubeadm. Here two programs must do, so as to be ready in seconds: kubeadm takes
longer to compile than all of this to run. People and programs log in with bearer tokens; only the server has a
certificate.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from local_cluster.errors import ClusterError


@dataclass(frozen=True, slots=True)
class ServerCertificates:
    """Files that the API server starts from."""

    ca: Path
    certificate: Path
    key: Path
    service_account_key: Path


def make(folder: Path) -> ServerCertificates:
    """A certificate authority, its certificate for loopback, and the key that signs service-account tokens."""
    files = ServerCertificates(
        ca=folder / "ca.crt",
        certificate=folder / "server.crt",
        key=folder / "server.key",
        service_account_key=folder / "service-account.key",
    )
    ca_key = folder / "ca.key"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650"]
    _openssl("req", "-x509", *curve, "-keyout", ca_key, "-out", files.ca, "-subj", "/CN=datahall-local-ca",
             "-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature")  # fmt: skip
    _openssl("req", "-x509", *curve, "-CA", files.ca, "-CAkey", ca_key,
             "-keyout", files.key, "-out", files.certificate, "-subj", "/CN=kube-apiserver",
             "-addext", "basicConstraints=critical,CA:FALSE",
             "-addext", "keyUsage=critical,digitalSignature", "-addext", "extendedKeyUsage=serverAuth",
             "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:kubernetes.default.svc")  # fmt: skip
    # Not genpkey: the API server also reads the public half from this file, which it can do in the older format only.
    _openssl("ecparam", "-genkey", "-noout", "-name", "prime256v1", "-out", files.service_account_key)
    return files


def _openssl(*arguments: str | Path) -> None:
    try:
        result = subprocess.run(
            ["openssl", *map(str, arguments)], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise ClusterError("there is no `openssl` on PATH: apt-get install openssl") from None
    if result.returncode != 0:
        raise ClusterError(f"openssl {arguments[0]} failed: {result.stderr.strip()}")
