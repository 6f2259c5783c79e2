"""What people type: `python -m local_cluster COMMAND`, from the root of the repository."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence

from local_cluster.errors import ClusterError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; errors meant for people are one sentence and exit status 1."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except ClusterError as error:
        print(f"local_cluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m local_cluster", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    api = commands.add_parser("api", help="run a control plane without a real node, in the foreground")
    api.add_argument(
        "--nodes", type=int, default=0, help="fake GPU nodes, played by KWOK (default 0: no KWOK)"
    )
    api.add_argument("--controller-manager", action="store_true", help="run kube-controller-manager")
    api.add_argument("--scheduler", action="store_true", help="run kube-scheduler")
    api.set_defaults(run=_api)

    build = commands.add_parser("binaries", help="compile programs into the cache and print where they are")
    build.add_argument("names", nargs="*", help="which (default: all)")
    build.set_defaults(run=_binaries)
    return parser


def _api(options: argparse.Namespace) -> None:
    from local_cluster.api import ApiServer, Options
    from local_cluster.gpu_nodes import Layout
    from local_cluster.progress import say

    layout = Layout(nodes=options.nodes) if options.nodes else None
    wanted = Options(
        controller_manager=options.controller_manager, scheduler=options.scheduler, layout=layout
    )
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with ApiServer(wanted) as server:
        print(f"export KUBECONFIG={server.kubeconfig}", flush=True)
        say(f"ready at {server.url}; logs in {server.folder}; Ctrl-C ends it")
        stop.wait()


def _binaries(options: argparse.Namespace) -> None:
    from local_cluster import binaries

    unknown = set(options.names) - set(binaries.PROGRAMS)
    if unknown:
        raise ClusterError(
            f"no such program: {', '.join(sorted(unknown))}; there are {', '.join(binaries.PROGRAMS)}"
        )
    for path in binaries.ensure(*(options.names or binaries.PROGRAMS)).values():
        print(path)
