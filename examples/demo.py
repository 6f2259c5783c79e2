"""`make demo`: from a chart and four manifests to a trained model that answers.

    python examples/demo.py [digits|reviews]

Prepares the data, installs Datahall by Helm into the cluster of the current kubeconfig, applies `examples/NAME/`, shows
the training's progress, prints the held-out accuracy, and asks the served model about held-out samples over HTTP,
through the InferenceService's Service. Running it again trains again. Everything it does is done by commands that a
user could type; each is printed before it runs. What the cluster must have is looked at first: `fitting.py`.
"""

from __future__ import annotations

import csv
import json
import os
import random
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import fitting
import pinned_data
import yaml
from commands import found, objects, output, run, say
from loading import load

ROOT = Path(__file__).resolve().parent.parent
NAMESPACE = "team-a"
SYSTEM = "datahall-system"
SAMPLES = 10
PROGRAMS = ("kubectl", "helm", "datahall")


def manifests(file: Path) -> list[dict[str, Any]]:
    """The objects in a file."""
    return [body for body in yaml.safe_load_all(file.read_text(encoding="utf-8")) if body]


def install(images: list[str]) -> None:
    """Install or upgrade the operator by its chart."""
    try:
        run(
            *("helm", "upgrade", "--install", "datahall", ROOT / "charts" / "datahall"),
            *("--namespace", SYSTEM, "--create-namespace", "--wait", "--timeout", "300s"),
            *images,
            *shlex.split(os.environ.get("DATAHALL_HELM_FLAGS", "")),
        )
    except SystemExit:
        for pod in objects("pods", "-n", SYSTEM):
            if why := fitting.trouble(pod):
                say(f"pod {pod['metadata']['name']}: {why}")
        raise


def trainer_image() -> str:
    """The image that the installed operator uses for its pods."""
    path = "jsonpath={.spec.template.spec.containers[0].env[?(@.name=='DATAHALL_TRAINER_IMAGE')].value}"
    return output("kubectl", "-n", SYSTEM, "get", "deployment", "datahall-operator", "-o", path)


def missing_claims(folder: Path) -> list[dict[str, Any]]:
    """The claims of the example that the namespace does not have yet, as this cluster needs them."""
    return fitting.claims_to_make(
        manifests(folder / "20-storage.yaml"),
        present=[claim["metadata"]["name"] for claim in objects("pvc", "-n", NAMESPACE)],
        classes=objects("storageclasses"),
        environ=os.environ,
    )


def make_claims(folder: Path, claims: list[dict[str, Any]]) -> None:
    """Make claims; those that are there are left alone."""
    if not claims:
        say("the claims data and models are there already")
    elif claims == manifests(folder / "20-storage.yaml"):
        run("kubectl", "apply", "-f", folder / "20-storage.yaml")
    else:
        for claim in claims:
            spec = claim["spec"]
            say(
                f"claim {claim['metadata']['name']}: {', '.join(spec['accessModes'])}, "
                f"StorageClass {spec.get('storageClassName', 'by default')}"
            )
            run("kubectl", "apply", "-f", "-", stdin=json.dumps(claim))


def train(name: str) -> None:
    """Apply the TrainingJob anew, and the InferenceService beside it; wait for the end of the training."""
    folder = ROOT / "examples" / name
    job, service = folder / "30-trainingjob.yaml", folder / "40-inferenceservice.yaml"
    run("kubectl", "-n", NAMESPACE, "delete", "trainingjob", name, "--ignore-not-found")
    fitted, changed = fitting.fitted_job(manifests(job)[0], objects("nodes"))
    if changed:
        say(changed)
        run("kubectl", "apply", "-f", "-", stdin=json.dumps(fitted))
        run("kubectl", "apply", "-f", service)
    else:
        run("kubectl", "apply", "-f", job, "-f", service)
    stop_if_hopeless(name)
    run("datahall", "wait", f"tj/{name}", "-n", NAMESPACE, "--timeout", "1200")
    status = found("trainingjob", name, namespace=NAMESPACE)["status"]
    metrics = status["output"]["metrics"]
    say(f"trained on: {status['progress']['device']}; output {status['output']['digest'][:19]}...")
    print(f"held-out accuracy: {100 * metrics['validation_accuracy']:.1f} %", flush=True)


def stop_if_hopeless(name: str, *, seconds: float = 10) -> None:
    """End the demo if the job waits for what will not come; one that merely waits is waited for."""
    deadline, why = time.monotonic() + seconds, ""
    while time.monotonic() < deadline:
        status = found("trainingjob", name, namespace=NAMESPACE).get("status") or {}
        why = fitting.hopeless(status)
        if not why and status.get("state", "Pending") not in ("Pending", "Queued"):
            return
        time.sleep(0.5)
    # Only now: the first answer may be older than the claims and the queue that were just made.
    if why:
        raise SystemExit(
            f"the job cannot start: {why}\n`datahall describe tj/{name} -n {NAMESPACE}` has the rest"
        )


def ask(name: str, source: Path) -> None:
    """Ask the served model about held-out samples."""
    wanted = ("--for=condition=Ready", f"inferenceservices.datahall.dev/{name}", "--timeout=600s")
    run("kubectl", "-n", NAMESPACE, "wait", *wanted)
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
    """One held-out picture of each digit, with its truth."""
    chosen = random.Random(2026)
    images = [
        chosen.choice(sorted((source / "validation" / str(digit)).glob("*.png"))) for digit in range(10)
    ]
    return [([str(image)], image.parent.name) for image in images]


def reviews(source: Path) -> list[tuple[list[str], str]]:
    """Held-out sentences with their truth."""
    with (source / "validation.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    return [(["--text", row["text"]], row["label"]) for row in random.Random(2026).sample(rows, SAMPLES)]


def main() -> int:
    """The program."""
    name = sys.argv[1] if len(sys.argv) > 1 else "digits"
    if name not in ("digits", "reviews"):
        raise SystemExit(f"there is no example {name!r}; there are: digits, reviews")
    folder = ROOT / "examples" / name
    # Whatever can be missing is looked for before anything is changed.
    if missing := fitting.missing_programs(PROGRAMS, shutil.which):
        raise SystemExit(missing)
    images = fitting.image_flags(os.environ)
    claims = missing_claims(folder)
    source = pinned_data.cache_directory() / "examples" / name
    run(sys.executable, folder / "prepare.py", source)

    install(images)
    run("kubectl", "apply", "-f", folder / "10-team.yaml")
    make_claims(folder, claims)
    load(source, name=name, namespace=NAMESPACE, image=trainer_image())
    train(name)
    ask(name, source)
    say(f"done. Look around: datahall list -n {NAMESPACE}; datahall describe tj/{name} -n {NAMESPACE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
