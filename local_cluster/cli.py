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

    full = commands.add_parser(
        "up", help="start the full cluster, or mend it (CLUSTER=current: check the current context)"
    )
    full.add_argument(
        "--no-images", action="store_true", help="leave the operator's and the trainer's image out"
    )
    full.add_argument(
        "--wait",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="how long to wait for the local cluster of another checkout's cache to end (default 0)",
    )
    full.set_defaults(run=_up)
    commands.add_parser("down", help="end it; programs and images stay in the cache").set_defaults(run=_down)
    commands.add_parser("status", help="what runs, and whether it is well").set_defaults(run=_status)
    commands.add_parser("env", help='print what a shell needs: eval "$(... env)"').set_defaults(run=_env)
    commands.add_parser("images", help="build both images and import them").set_defaults(run=_images)

    commands.add_parser(
        "prepare", help="build programs and images into the cache, and start nothing"
    ).set_defaults(run=_prepare)

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


def _up(options: argparse.Namespace) -> None:
    from local_cluster import cluster, current

    if current.chosen():
        current.check(with_images=not options.no_images)
    else:
        cluster.up(with_images=not options.no_images, wait_seconds=options.wait)


def _down(_: argparse.Namespace) -> None:
    from local_cluster import cluster, current
    from local_cluster.progress import say

    if current.chosen():
        say("CLUSTER=current: that cluster is not ours to end, so nothing was done")
    else:
        cluster.down()


def _status(_: argparse.Namespace) -> None:
    from local_cluster import cluster, current

    if current.chosen():
        current.check(with_images=False)
        return
    states = cluster.status()
    for state in states:
        since = "" if state.seconds is None else f"since {_ago(state.seconds)}"
        verdict = "healthy" if state.healthy else "not running" if state.pid is None else "NOT HEALTHY"
        print(f"{state.name:24} {state.pid or '-':>8}  {verdict:12} {since}".rstrip())
    if not all(state.healthy for state in states):
        raise ClusterError("not all of it is well: `python -m local_cluster up` starts or mends it")


def _ago(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _env(_: argparse.Namespace) -> None:
    from local_cluster import binaries, current, images
    from local_cluster.site import Site

    folders = dict.fromkeys(str(binaries.location(name).parent) for name in ("kubectl", "helm"))
    if current.chosen():
        # Whatever the team has comes first; ours are there for those who have none.
        print(f"export PATH=$PATH:{':'.join(folders)}")
        return
    print(f"export KUBECONFIG={Site().kubeconfig}")
    print(f"export PATH={':'.join(folders)}:$PATH")
    for image in images.IMAGES:
        print(f"export DATAHALL_{image.name.upper()}_IMAGE={image.names()[-1]}")


def _images(_: argparse.Namespace) -> None:
    from local_cluster import cluster, current, images

    if current.chosen():
        raise ClusterError(
            "CLUSTER=current: this brings images to the local cluster only; for yours, build and push them "
            "(docs/getting-started.md#on-your-own-cluster)"
        )
    cluster.bring_images()
    for image in images.IMAGES:
        print(*image.names())


def _prepare(_: argparse.Namespace) -> None:
    from local_cluster import cluster, current

    cluster.prepare(with_images=not current.chosen())


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
