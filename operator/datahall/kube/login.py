"""Where the API server is and how to log in: the official client's loaders, reduced to what requests need."""

from __future__ import annotations

import inspect
import os
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datahall.kube.errors import KubeConfigError

SERVICE_ACCOUNT_DIRECTORY = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class Login:
    """A server and a way to be let in.

    Attributes:
        server: base URL without a trailing slash.
        ssl_context: None for plain HTTP.
        authorization: gives the current `Authorization` header, or None; tokens rotate, so it is asked each time.
        namespace: the namespace of the context, or of the pod.
    """

    server: str
    ssl_context: ssl.SSLContext | None
    authorization: Callable[[], Awaitable[str | None]]
    namespace: str


async def load(*, kubeconfig: str | None = None, context: str | None = None) -> Login:
    """Load the login: an explicit kubeconfig, else KUBECONFIG, else the pod's service account, else ~/.kube/config.

    In a pod the service account wins over a home directory, because an image may carry a stray kubeconfig.

    Raises:
        KubeConfigError: nothing usable was found, or the file or its context is broken.
    """
    # Late import: it costs 0.1 s and `datahall --help` does not need it.
    from kubernetes.aio.client import Configuration
    from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

    configuration = Configuration()
    # The library reads the variable once, when it is imported; a notebook or a test may set it later.
    kubeconfig = kubeconfig or os.environ.get("KUBECONFIG") or None
    if kubeconfig is not None and not _exists(kubeconfig):
        raise KubeConfigError(f"there is no kubeconfig {kubeconfig}")
    in_cluster = (
        "KUBERNETES_SERVICE_HOST" in os.environ and SERVICE_ACCOUNT_DIRECTORY.joinpath("token").exists()
    )
    try:
        if kubeconfig is None and in_cluster:
            load_incluster_config(client_configuration=configuration)
            namespace = SERVICE_ACCOUNT_DIRECTORY.joinpath("namespace").read_text().strip()
        else:
            await load_kube_config(
                config_file=kubeconfig, context=context, client_configuration=configuration
            )
            namespace = _context_namespace(kubeconfig, context)
    except (ConfigException, OSError, KeyError, TypeError) as error:
        raise KubeConfigError(
            f"no usable Kubernetes login: {error}; set KUBECONFIG or pass --kubeconfig"
        ) from error
    return Login(
        server=configuration.host.rstrip("/"),
        ssl_context=_ssl_context(configuration),
        authorization=_authorization(configuration),
        namespace=namespace,
    )


def _exists(kubeconfig: str) -> bool:
    """Whether there is any of the files: the variable may name several, as a PATH does."""
    return any(Path(path).expanduser().exists() for path in kubeconfig.split(os.pathsep))


def _context_namespace(kubeconfig: str | None, context: str | None) -> str:
    from kubernetes.aio.config import list_kube_config_contexts

    contexts, active = list_kube_config_contexts(config_file=kubeconfig)
    chosen = next((c for c in contexts if c["name"] == context), active)
    return str((chosen or {}).get("context", {}).get("namespace") or "default")


def _ssl_context(configuration: Any) -> ssl.SSLContext | None:
    if configuration.host.startswith("http://"):
        return None
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _authorization(configuration: Any) -> Callable[[], Awaitable[str | None]]:
    async def current() -> str | None:
        value = configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        if inspect.isawaitable(value):
            value = await value
        return str(value) if value else None

    return current
