"""The node's network namespace and the link to it.

The node lives in a namespace of its own, so that kube-proxy's rules, the pods' routes and open ports never touch the
machine's. A veth pair leads in, and the machine routes pod and Service addresses over it: `curl` and the tests reach
both as if they were on the node. Pods reach the machine but not what lies behind it, as nothing here does NAT.

Programs enter with `nsenter --net`, never `ip netns exec`: the latter mounts a fresh /sys, which hides the
cgroups from the kubelet.
"""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
from pathlib import Path

from local_cluster.errors import ClusterError
from local_cluster.site import HOST_LINK, NODE_LINK, Site


def enter(site: Site, *command: str | Path) -> list[str]:
    """The command line that runs `command` in the node's namespace; nsenter is replaced by it, so the pid stays."""
    return ["nsenter", f"--net={site.namespace}", "--", *map(str, command)]


def exists(site: Site) -> bool:
    """Whether the namespace is there: a mount, not merely the file that it would be mounted on."""
    return str(site.namespace) in mounts_under(site.run)


def set_up(site: Site) -> None:
    """Make namespace, link and routes."""
    addresses = site.addresses
    site.namespace.parent.mkdir(parents=True, exist_ok=True)
    site.namespace.touch()
    _run("unshare", f"--net={site.namespace}", "true")
    _run("ip", "link", "add", HOST_LINK, "type", "veth", "peer", "name", NODE_LINK)
    _run("ip", "link", "set", NODE_LINK, "netns", str(site.namespace))
    _run("ip", "address", "add", f"{addresses.host}/30", "dev", HOST_LINK)
    _run("ip", "link", "set", HOST_LINK, "up")
    inside = [
        ["ip", "link", "set", "lo", "up"],
        ["ip", "address", "add", f"{addresses.node}/30", "dev", NODE_LINK],
        ["ip", "link", "set", NODE_LINK, "up"],
        ["ip", "route", "add", "default", "via", addresses.host],
        ["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"],
    ]
    for command in inside:
        _run(*enter(site, *command))
    for destination in (addresses.pods, addresses.services):
        _run("ip", "route", "add", destination, "via", addresses.node, "dev", HOST_LINK)


def tear_down(site: Site) -> None:
    """Remove link (its routes go with it) and namespace; what is not there is no error."""
    if Path(f"/sys/class/net/{HOST_LINK}").exists():
        _run("ip", "link", "delete", HOST_LINK)
    if exists(site):
        _run("umount", str(site.namespace))
    site.namespace.unlink(missing_ok=True)


def collisions(site: Site) -> list[str]:
    """Routes of the machine, other than the default and ours, that overlap the addresses that we want."""
    ours = ipaddress.ip_network(site.addresses.whole)
    found = []
    for route in json.loads(_run("ip", "-json", "-4", "route", "show") or "[]"):
        if route["dst"] == "default" or route.get("dev") == HOST_LINK:
            continue
        if ipaddress.ip_network(route["dst"], strict=False).overlaps(ours):
            found.append(f"{route['dst']} dev {route.get('dev', '?')}")
    return found


def mount(own: Path, point: Path) -> None:
    """Show `own` at `point`, over what is there, unless something is mounted there already."""
    if str(point) in mounts_under(point):
        return
    _run("mount", "--bind", str(own), str(point))
    # Apart from the machine's own mounts: what a kubelet mounts below would appear below `own` a second time.
    _run("mount", "--make-private", str(point))
    _run("mount", "--make-shared", str(point))


def mounts_under(folder: Path) -> list[str]:
    """Mount points at or below `folder`, innermost first."""
    prefix = str(folder)
    points = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].replace("\\040", " ")
        if point == prefix or point.startswith(prefix + "/"):
            points.append(point)
    return list(reversed(points))


def unmount_under(folder: Path) -> None:
    """Unmount everything at or below `folder`; a busy one is detached."""
    for point in mounts_under(folder):
        if subprocess.run(["umount", point], capture_output=True, check=False).returncode != 0:
            subprocess.run(["umount", "--lazy", point], capture_output=True, check=False)


def _run(*command: str) -> str:
    # sysctl and ip lie in /usr/sbin, which is not on everybody's PATH.
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
    )
    if result.returncode != 0:
        raise ClusterError(f"{' '.join(command)}: {result.stderr.strip()}")
    return result.stdout
