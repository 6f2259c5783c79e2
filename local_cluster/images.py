"""The two images, from source files to something containerd can import.

    base (mmdebstrap) -> Containerfile (buildah, layers cached) -> OCI layout (skopeo) -> `containerd.import_image`

Everything is keyed by the hash of what goes in: an image whose inputs did not change is not even looked at by
buildah, and each image also gets the hash as a tag, so that a Deployment that names it is rolled when the code
changed. Compression is off from end to end: layers never leave this machine, and packing 5 GB of PyTorch would
take minutes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from local_cluster.errors import ClusterError
from local_cluster.locks import file_lock
from local_cluster.paths import REPOSITORY, cache_home
from local_cluster.progress import say

_SUITE = "bookworm"  # Its Python is 3.11, which is what the lock files are made for.
_VARIANT = "apt"  # Debian's essential packages, and what installs others.
_PACKAGES = ("ca-certificates", "python3", "python3-venv")
_CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """An image of ours and the files that decide what is in it, relative to the root of the repository."""

    name: str
    containerfile: str
    inputs: tuple[str, ...]

    @property
    def repository(self) -> str:
        """Its name without a tag."""
        return f"datahall.dev/{self.name}"

    def names(self) -> list[str]:
        """The tag that stays, for people, and the tag by content, for Deployments."""
        return [f"{self.repository}:dev", f"{self.repository}:{self.content_hash()}"]

    def content_hash(self) -> str:
        """Changes whenever a rebuild could give something else."""
        files = [self.containerfile, "requirements/image-tools.txt", *self.inputs]
        return files_hash(REPOSITORY, files, salt=repr((_SUITE, _VARIANT, _PACKAGES)))

    @property
    def layout(self) -> Path:
        """Folder in OCI layout that the build leaves."""
        return cache_home() / "images" / self.name

    def built(self) -> bool:
        """Whether `layout` holds just this content."""
        return _stamp(self.layout) == self.content_hash()


IMAGES = (
    Image(
        name="operator",
        containerfile="operator/Containerfile",
        inputs=("requirements/operator.txt", "operator/datahall"),
    ),
    Image(
        name="trainer",
        containerfile="trainer_image/Containerfile",
        inputs=(
            "requirements/trainer.txt",
            "trainer_image/datahall_trainer",
            "trainer_image/datahall_server",
            "cuda_kernels/datahall_kernels",
        ),
    ),
)


def files_hash(root: Path, names: Iterable[str], *, salt: str = "") -> str:
    """Hash of files and folders: names, contents, and whether executable. Byte code does not count."""
    digest = hashlib.sha256(salt.encode())
    for name in names:
        top = root / name
        paths = sorted(top.rglob("*")) if top.is_dir() else [top]
        for path in paths:
            if path.is_file() and "__pycache__" not in path.parts:
                mode = "x" if os.access(path, os.X_OK) else "-"
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                digest.update(f"{path.relative_to(root)}\0{mode}\0{content}\n".encode())
    return digest.hexdigest()[:12]


def build(image: Image) -> None:
    """Bring the image's layout up to date; returns at once when it is."""
    if image.built():
        return
    with file_lock(image.layout.with_name("build.lock"), waiting_for=f"image {image.name}"):
        if not image.built():  # by another process while we waited
            _build(image)


def _build(image: Image) -> None:
    # Before the build: files that change meanwhile give another hash next time.
    wanted = image.content_hash()
    base = _base()
    started = time.monotonic()
    say(f"image {image.name}: building")
    ca = next((path for path in _CERTIFICATES if Path(path).exists()), None)
    _buildah(
        "build",
        "--layers",
        "--isolation=chroot",  # needs no namespaces beyond what the caller has, and no CAP_SYS_RESOURCE
        "--network=host",
        "--pull=never",
        f"--build-arg=BASE={base}",
        *([f"--secret=id=ca,src={ca}"] if ca else []),
        f"--ignorefile={_ignorefile()}",
        f"--file={REPOSITORY / image.containerfile}",
        f"--tag=localhost/datahall-{image.name}:dev",
        str(REPOSITORY),
    )
    _push(f"localhost/datahall-{image.name}:dev", image.layout)
    _prune(image.layout)
    _stamp_path(image.layout).write_text(wanted)
    say(f"image {image.name} built in {time.monotonic() - started:.0f} s")


def _base() -> str:
    """The base image, made by mmdebstrap once per recipe; its name."""
    recipe = hashlib.sha256(repr((_SUITE, _VARIANT, _PACKAGES, _CLEAN)).encode()).hexdigest()[:12]
    name = f"localhost/datahall-base:{recipe}"
    _store().mkdir(parents=True, exist_ok=True)
    with file_lock(_store() / "base.lock", waiting_for="base image"):
        if name in _buildah("images", "--format={{.Name}}:{{.Tag}}").splitlines():
            return name
        started = time.monotonic()
        say("base image: mmdebstrap")
        root = cache_home() / "images" / "base-rootfs"
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        mirror = _mirror()
        _run(
            "mmdebstrap",
            f"--variant={_VARIANT}",
            f"--include={','.join(_PACKAGES)}",
            _SUITE,
            str(root),
            *([mirror] if mirror else []),
        )
        for pattern in _CLEAN:
            for path in root.glob(pattern):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        container = _buildah("from", "scratch").strip()
        _buildah("copy", "--quiet", container, str(root), "/")
        _buildah(
            "config", "--cmd=python3", "--env=PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", container
        )
        _buildah("commit", "--quiet", "--rm", container, name)
        shutil.rmtree(root)
        say(f"base image built in {time.monotonic() - started:.0f} s")
    return name


# Package lists and documentation, and every trace of the machine it was made on: its mirror, its name, its resolvers.
_CLEAN = (
    "etc/apt/sources.list",
    "etc/hostname",
    "etc/resolv.conf",
    "etc/machine-id",
    "var/cache/apt/*",
    "var/cache/debconf/*-old",
    "var/lib/apt/lists/*",
    "var/log/*",
    "usr/share/doc/*",
    "usr/share/info/*",
    "usr/share/locale/*",
    "usr/share/man/*",
)


def _mirror() -> str | None:
    """The mirror this machine gets its own Debian packages from; None lets debootstrap take its default."""
    targets = _run("apt-get", "indextargets", "--format=$(CODENAME) $(COMPONENT) $(REPO_URI)")
    for line in targets.splitlines():
        codename, component, *uri = line.split()
        if (codename, component) == (_SUITE, "main") and uri:
            return uri[0]
    return None


def _push(name: str, layout: Path) -> None:
    """Write the image as a folder in OCI layout; blobs that lie there already are not written again.

    By skopeo and not by `buildah push`, which packs the layers whatever `--disable-compression` says, and so also
    cannot see that it wrote them before: minutes for each change of a line of code, where this takes a tenth of a
    second.
    """
    layout.mkdir(parents=True, exist_ok=True)
    (layout / "index.json").unlink(missing_ok=True)  # else it collects every image that was ever pushed here
    store = _store()
    _run(
        "skopeo",
        f"--policy={store / 'policy.json'}",
        "copy",
        "--quiet",
        "--dest-oci-accept-uncompressed-layers",
        f"containers-storage:[overlay@{store / 'root'}+{store / 'run'}]{name}",
        f"oci:{layout}",
    )


def _prune(layout: Path) -> None:
    """Forget what no current image is made of: one outdated layer of dependencies is 5 GB, in each of two places."""
    _, digests = manifest(layout)
    for path in (layout / "blobs" / "sha256").iterdir():
        if f"sha256:{path.name}" not in digests:
            path.unlink()
    # A build that was killed leaves its working container, and that holds its image for ever.
    _buildah("rm", "--all")
    _buildah("rmi", "--prune")


def manifest(layout: Path) -> tuple[dict[str, object], list[str]]:
    """The descriptor of the layout's one image, and the digests of all its blobs, the manifest's own first."""
    descriptor = json.loads((layout / "index.json").read_text())["manifests"][0]
    content = json.loads(blob(layout, descriptor["digest"]).read_text())
    digests = [descriptor["digest"], content["config"]["digest"]]
    return descriptor, digests + [layer["digest"] for layer in content["layers"]]


def blob(layout: Path, digest: str) -> Path:
    """Where a blob lies in a layout."""
    return layout / "blobs" / Path(digest.replace(":", "/"))


def _stamp_path(layout: Path) -> Path:
    return layout.with_name(f"{layout.name}.inputs")


def _stamp(layout: Path) -> str:
    try:
        return _stamp_path(layout).read_text()
    except FileNotFoundError:
        return ""


def _store() -> Path:
    return cache_home() / "buildah"


def _ignorefile() -> Path:
    path = _store() / "ignore"
    path.write_text("**/__pycache__\n**/*.egg-info\n.git\n.venv\n")
    return path


def _buildah(*arguments: str) -> str:
    """Run buildah on a store of our own: the machine's images stay as they are, and ours go with the cache."""
    store = _store()
    store.mkdir(parents=True, exist_ok=True)
    policy = store / "policy.json"
    if not policy.exists():
        # Nothing is pulled, so there are no signatures; without the file buildah refuses to start.
        policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
    settings = store / "containers.conf"
    # Else it makes /etc/cni for networks that we do not use.
    settings.write_text(f'[network]\nnetwork_config_dir = "{store / "networks"}"\n')
    verbs_with_policy = {"from", "build", "commit"}
    extra = [f"--signature-policy={policy}"] if arguments[0] in verbs_with_policy else []
    return _run(
        "buildah",
        f"--root={store / 'root'}",
        f"--runroot={store / 'run'}",
        "--storage-driver=overlay",
        arguments[0],
        *extra,
        *arguments[1:],
        environment={"CONTAINERS_CONF": str(settings)},
    )


def _run(*command: str, environment: Mapping[str, str] | None = None) -> str:
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})},
    )
    if result.returncode != 0:
        tail = "\n".join((result.stdout + result.stderr).splitlines()[-25:])
        raise ClusterError(f"{command[0]} {' '.join(command[1:4])} ... failed:\n{tail}")
    return result.stdout
