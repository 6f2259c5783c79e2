"""The chart, rendered without a cluster."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from local_cluster import binaries

CHART = Path(__file__).parents[3] / "charts" / "datahall"
NAMESPACE = "hall"

Objects = dict[tuple[str, str], dict[str, Any]]
Helm = Callable[..., subprocess.CompletedProcess[str]]
Render = Callable[..., Objects]


@pytest.fixture(scope="session")
def helm() -> Helm:
    program = binaries.ensure("helm")["helm"]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def render(helm: Helm, tmp_path: Path) -> Render:
    def run(**values: Any) -> Objects:
        file = tmp_path / "values.yaml"
        file.write_text(yaml.safe_dump(values), encoding="utf-8")
        result = helm("template", "release", str(CHART), "--namespace", NAMESPACE, "--values", str(file))
        assert result.returncode == 0, result.stderr
        found = [item for item in yaml.safe_load_all(result.stdout) if item]
        objects = {(item["kind"], item["metadata"]["name"]): item for item in found}
        assert len(objects) == len(found)
        return objects

    return run
