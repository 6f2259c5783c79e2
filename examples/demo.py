"""`make demo`: from a chart and four manifests to a trained model that answers.

    python examples/demo.py [digits|reviews]

Installs Datahall by Helm into the cluster of the current kubeconfig, applies `examples/NAME/`, shows the training's
progress, prints the held-out accuracy, and asks the served model about held-out samples over HTTP, through the
InferenceService's Service. Running it again trains again. Everything it does is done by commands that a user could
type; each is printed before it runs.
"""

from __future__ import annotations

import csv
import json
import os
import random
import shlex
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pinned_data

ROOT = Path(__file__).resolve().parent.parent
NAMESPACE = "team-a"
SYSTEM = "datahall-system"
SAMPLES = 10

_started = time.monotonic()


def say(text: str) -> None:
    print(f"[{time.monotonic() - _started:5.0f} s] {text}", flush=True)


def run(*command: str | Path, quiet: bool = False) -> None:
    """Run a command, showing it first; a failure ends the demo with its exit code."""
    words = [str(word) for word in command]
    if not quiet:
        say("$ " + shlex.join(words))
    done = subprocess.run(words, check=False, stdout=subprocess.DEVNULL if quiet else None)
    if done.returncode != 0:
        raise SystemExit(f"`{shlex.join(words)}` failed with exit code {done.returncode}")


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def data_directory(name: str) -> Path:
    return pinned_data.cache_directory() / "examples" / name


def image_values(kind: str, variable: str) -> list[str]:
    """Helm flags for an image given as REPOSITORY:TAG in the environment."""
    image = os.environ.get(variable)
    if not image:
        return []
    repository, _, tag = image.rpartition(":")
    return [f"--set=images.{kind}.repository={repository}", f"--set=images.{kind}.tag={tag}"]


def install() -> None:
    """Install or upgrade the operator by its chart."""
    run(
        *("helm", "upgrade", "--install", "datahall", ROOT / "charts" / "datahall"),
        *("--namespace", SYSTEM, "--create-namespace", "--wait", "--timeout", "180s"),
        *image_values("operator", "DATAHALL_OPERATOR_IMAGE"),
        *image_values("trainer", "DATAHALL_TRAINER_IMAGE"),
        *shlex.split(os.environ.get("DATAHALL_HELM_FLAGS", "")),
    )


def trainer_image() -> str:
    """The image that the installed operator uses for its pods."""
    path = "jsonpath={.spec.template.spec.containers[0].env[?(@.name=='DATAHALL_TRAINER_IMAGE')].value}"
    return output("kubectl", "-n", SYSTEM, "get", "deployment", "datahall-operator", "-o", path)


def load(name: str) -> Path:
    """Prepare the data here and copy it into the claim `data`, through a pod that mounts it."""
    source = data_directory(name)
    run(sys.executable, ROOT / "examples" / name / "prepare.py", source)
    pod = f"load-{name}"
    run(
        "kubectl",
        "-n",
        NAMESPACE,
        "delete",
        "pod",
        pod,
        "--ignore-not-found",
        "--grace-period=0",
        "--force",
        quiet=True,
    )
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod, "namespace": NAMESPACE},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "fsGroup": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "load",
                    "image": trainer_image(),
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sleep", "3600"],
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    "volumeMounts": [{"name": "data", "mountPath": "/mnt/pvc/data"}],
                }
            ],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        },
    }
    subprocess.run(
        ["kubectl", "apply", "-f", "-"],
        input=json.dumps(manifest),
        text=True,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    run(
        "kubectl",
        "-n",
        NAMESPACE,
        "wait",
        "--for=condition=Ready",
        f"pod/{pod}",
        "--timeout=180s",
        quiet=True,
    )
    say(f"copying {source.name} into pvc://data/{name}")
    unpack = (
        "import sys, tarfile; "
        f"tarfile.open(fileobj=sys.stdin.buffer, mode='r|').extractall('/mnt/pvc/data/{name}')"
    )
    copying = subprocess.Popen(
        ["kubectl", "-n", NAMESPACE, "exec", "-i", pod, "--", "python", "-c", unpack], stdin=subprocess.PIPE
    )
    assert copying.stdin is not None
    with tarfile.open(fileobj=copying.stdin, mode="w|") as archive:
        archive.add(source, arcname=".", filter=_plain)
    copying.stdin.close()
    if copying.wait() != 0:
        raise SystemExit("copying the data into the claim failed")
    run(
        "kubectl",
        "-n",
        NAMESPACE,
        "delete",
        "pod",
        pod,
        "--grace-period=0",
        "--force",
        "--wait=false",
        quiet=True,
    )
    return source


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 1000
    member.uname = member.gname = ""
    member.mode = 0o755 if member.isdir() else 0o644
    return member


def train(name: str) -> None:
    """Apply the TrainingJob anew, and the InferenceService beside it; wait for the end of the training."""
    folder = ROOT / "examples" / name
    run("kubectl", "-n", NAMESPACE, "delete", "trainingjob", name, "--ignore-not-found")
    run("kubectl", "apply", "-f", folder / "30-trainingjob.yaml", "-f", folder / "40-inferenceservice.yaml")
    run("datahall", "wait", f"tj/{name}", "-n", NAMESPACE, "--timeout", "1200")
    status = json.loads(output("kubectl", "-n", NAMESPACE, "get", "trainingjob", name, "-o", "json"))[
        "status"
    ]
    metrics = status["output"]["metrics"]
    say(f"trained on: {status['progress']['device']}; output {status['output']['digest'][:19]}...")
    print(f"held-out accuracy: {100 * metrics['validation_accuracy']:.1f} %", flush=True)


def ask(name: str, source: Path) -> None:
    """Ask the served model about held-out samples."""
    run(
        "kubectl",
        "-n",
        NAMESPACE,
        "wait",
        "--for=condition=Ready",
        f"inferenceservices.datahall.dev/{name}",
        "--timeout=300s",
    )
    samples = digits(source) if name == "digits" else reviews(source)
    right = 0
    for given, truth in samples:
        answer = json.loads(output("datahall", "predict", name, "-n", NAMESPACE, "--json", *given))
        best = answer["results"][0]["classes"][0]
        right += best["label"] == truth
        shown = given[-1] if given[0] == "--text" else str(Path(given[-1]).relative_to(source))
        print(f"  {shown[:64]:<64}  ->  {best['label']}  ({best['score']:.3f}; truth: {truth})", flush=True)
    print(f"{right} of {len(samples)} held-out samples right", flush=True)


def digits(source: Path) -> list[tuple[list[str], str]]:
    chosen = random.Random(2026)
    images = [
        chosen.choice(sorted((source / "validation" / str(digit)).glob("*.png"))) for digit in range(10)
    ]
    return [([str(image)], image.parent.name) for image in images]


def reviews(source: Path) -> list[tuple[list[str], str]]:
    with (source / "validation.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    return [(["--text", row["text"]], row["label"]) for row in random.Random(2026).sample(rows, SAMPLES)]


def main() -> int:
    name = sys.argv[1] if len(sys.argv) > 1 else "digits"
    if name not in ("digits", "reviews"):
        raise SystemExit(f"there is no example {name!r}; there are: digits, reviews")
    install()
    folder = ROOT / "examples" / name
    run("kubectl", "apply", "-f", folder / "10-team.yaml", "-f", folder / "20-storage.yaml")
    source = load(name)
    train(name)
    ask(name, source)
    say(f"done. Look around: datahall list -n {NAMESPACE}; datahall describe tj/{name} -n {NAMESPACE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
