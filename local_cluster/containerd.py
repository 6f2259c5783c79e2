"""Images into containerd, and containers out of it.

An import brings only the blobs that containerd lacks, as hard links where that can be: the trainer's image has 5 GB of
PyTorch below a few kilobytes of code, a change of code must cost seconds, and the first import no copy of it all.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from local_cluster import images
from local_cluster.components import PAUSE_IMAGE
from local_cluster.errors import ClusterError
from local_cluster.images import Image
from local_cluster.progress import say
from local_cluster.site import Site

_KEPT_TAGS = 5
_ROOT = "containerd.io/gc.root"
"""Label of content that garbage collection must leave alone."""


def answers(site: Site) -> bool:
    """Whether containerd talks."""
    return _ctr(site, "version", check=False).returncode == 0


def import_image(site: Site, image: Image) -> None:
    """Give containerd the image that was built, under its names, unless it has it."""
    names = image.names()
    present = image_names(site)
    if set(names) <= present:
        return
    started = time.monotonic()
    descriptor, digests = images.manifest(image.layout)
    known = set(_ctr(site, "content", "ls", "-q").stdout.decode().split())
    missing = [digest for digest in digests if digest not in known]
    linked = [digest for digest in missing if _link_blob(site, image.layout, digest)]
    missing = [digest for digest in missing if digest not in linked]
    size = sum(images.blob(image.layout, digest).stat().st_size for digest in missing)
    say(
        f"image {image.name}: importing {len(linked) + len(missing)} of {len(digests)} blobs, "
        f"{size / 1e6:.0f} MB of them copied"
    )
    # The manifest goes along even when it is known: an archive of nothing but an index is refused.
    sent = [digest for digest in digests if digest in missing or digest == digests[0]]
    try:
        with _importing(site) as archive:
            write_archive(
                archive,
                names=names,
                descriptor=descriptor,
                blobs=[(digest, images.blob(image.layout, digest)) for digest in sent],
            )
    finally:
        for digest in linked:  # by now the image refers to them, or nothing shall
            _ctr(site, "content", "label", digest, f"{_ROOT}=", check=False)
    _share_blobs(site, image.layout, digests)
    _forget_old_tags(site, image)
    say(f"image {image.name} imported in {time.monotonic() - started:.0f} s")


def _forget_old_tags(site: Site, image: Image) -> None:
    """Keep the last few tags by content: a Deployment that was not upgraded yet still needs the one it names."""
    history = image.layout.with_name(f"{image.name}.tags")
    before = history.read_text().split() if history.exists() else []
    newest = image.names()[-1]
    tags = [*(tag for tag in before if tag != newest), newest]
    history.write_text("\n".join(tags[-_KEPT_TAGS:]) + "\n")
    old = set(tags[:-_KEPT_TAGS]) & image_names(site)
    if old:
        _ctr(site, "images", "rm", *old)


def write_archive(
    file: IO[bytes], *, names: Iterable[str], descriptor: dict[str, object], blobs: Iterable[tuple[str, Path]]
) -> None:
    """Write an OCI archive that names one manifest several times and holds just `blobs`."""
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{**descriptor, "annotations": {"io.containerd.image.name": name}} for name in names],
    }
    with tarfile.open(fileobj=file, mode="w|") as archive:
        for name, content in (("oci-layout", {"imageLayoutVersion": "1.0.0"}), ("index.json", index)):
            data = json.dumps(content).encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for digest, path in blobs:
            archive.add(path, f"blobs/{digest.replace(':', '/')}")


def import_pause(site: Site, program: Path) -> None:
    """The image that holds a pod's namespaces: one static program, put together here without any tool."""
    if PAUSE_IMAGE in image_names(site):
        return
    layout = site.state / "pause"
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        info = tarfile.TarInfo("pause")
        info.mode, info.size = 0o755, program.stat().st_size
        with program.open("rb") as file:
            archive.addfile(info, file)
    layer_digest = _write_blob(layout, layer.getvalue())
    config = {
        "architecture": "arm64" if os.uname().machine == "aarch64" else "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
    }
    config_data = json.dumps(config).encode()
    config_digest = _write_blob(layout, config_data)
    kind = "application/vnd.oci.image"
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": {"mediaType": f"{kind}.config.v1+json", "digest": config_digest, "size": len(config_data)},
        "layers": [
            {"mediaType": f"{kind}.layer.v1.tar", "digest": layer_digest, "size": len(layer.getvalue())}
        ],
    }
    data = json.dumps(manifest).encode()
    digest = _write_blob(layout, data)
    with _importing(site) as archive:
        write_archive(
            archive,
            names=[PAUSE_IMAGE],
            descriptor={"mediaType": manifest["mediaType"], "digest": digest, "size": len(data)},
            blobs=[(each, images.blob(layout, each)) for each in (digest, config_digest, layer_digest)],
        )
    shutil.rmtree(layout)


def image_names(site: Site) -> set[str]:
    """Names of the images that containerd has."""
    return set(_ctr(site, "images", "ls", "-q").stdout.decode().split())


def remove_containers(site: Site) -> list[str]:
    """Remove the records of all containers, whose processes must have ended (`cgroups.tear_down`); their ids."""
    names = _ctr(site, "containers", "ls", "-q", check=False).stdout.decode().split()
    for verb in ("tasks", "containers"):
        if names:
            _ctr(site, verb, "rm", *(["--force"] if verb == "tasks" else []), *names, check=False)
    return names


def shims(site: Site) -> list[int]:
    """Our containerd's shims: they carry its socket on their command line, which nobody else's do."""
    mark = str(site.socket).encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
            if b"containerd-shim" in arguments[0] and mark in arguments:
                found.append(int(folder.name))
    return found


def _stored(site: Site, digest: str) -> Path:
    """Where containerd keeps a blob."""
    return site.containerd_root / "io.containerd.content.v1.content" / "blobs" / digest.replace(":", "/")


def _link_blob(site: Site, layout: Path, digest: str) -> bool:
    """Give containerd a blob as a hard link into its store; False where that cannot be, and it has to be sent.

    What lies in its store already, containerd takes in by name and size without reading a byte (of content that
    namespaces share, its default). `ctr content ingest` has the blob at hand all the same, and sends it if asked.
    """
    ours, theirs = images.blob(layout, digest), _stored(site, digest)
    theirs.parent.mkdir(parents=True, exist_ok=True)
    try:
        theirs.hardlink_to(ours)
    except FileExistsError:
        pass
    except OSError:
        return False  # another file system, or one without links
    size = ours.stat().st_size
    expected = (f"--expected-digest={digest}", f"--expected-size={size}")
    with ours.open("rb") as file:
        taken = _ctr(site, "content", "ingest", *expected, f"link-{digest}", check=False, stdin=file)
    # Nothing refers to it yet, and containerd collects garbage at any time: only what it holds on to counts.
    rooted = _ctr(site, "content", "label", digest, f"{_ROOT}=import", check=False)
    return taken.returncode == 0 and rooted.returncode == 0


def _share_blobs(site: Site, layout: Path, digests: Iterable[str]) -> None:
    """Keep each blob once: the layout's become hard links to containerd's, where both are on one file system."""
    for digest in digests:
        ours, theirs = images.blob(layout, digest), _stored(site, digest)
        if theirs.exists() and not ours.samefile(theirs):
            link = ours.with_suffix(".link")
            link.unlink(missing_ok=True)
            try:
                link.hardlink_to(theirs)
            except OSError:
                return
            link.rename(ours)


def _write_blob(layout: Path, data: bytes) -> str:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    path = images.blob(layout, digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return digest


@contextlib.contextmanager
def _importing(site: Site) -> Iterator[IO[bytes]]:
    """A pipe into `ctr images import`; what it complains about becomes the error."""
    process = subprocess.Popen(
        ["ctr", f"--address={site.socket}", "--namespace=k8s.io", "images", "import", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stderr is not None
    with process, contextlib.suppress(BrokenPipeError):
        yield process.stdin
        process.stdin.close()
        complaint = process.stderr.read().decode().strip()
    if process.returncode != 0:
        raise ClusterError(f"containerd did not take the image: {complaint}")


def _ctr(
    site: Site, *arguments: str, check: bool = True, stdin: IO[bytes] | None = None
) -> subprocess.CompletedProcess[bytes]:
    result = subprocess.run(
        ["ctr", f"--address={site.socket}", "--namespace=k8s.io", *arguments],
        stdin=stdin,
        capture_output=True,
        check=False,
    )
    if check and result.returncode != 0:
        raise ClusterError(f"ctr {' '.join(arguments[:2])}: {result.stderr.decode().strip()}")
    return result
