"""What a reader is sent to is there: links, headings, commands, variables."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import typer.main

from datahall.cli.app import app
from datahall_server.config import Limits
from local_cluster import images

ROOT = Path(__file__).parents[3]
_TOPS = [top for top in sorted(ROOT.iterdir()) if not top.name.startswith(".")]
PAGES = [
    str(page.relative_to(ROOT))
    for top in _TOPS
    for page in (sorted(top.rglob("*.md")) if top.is_dir() else [top])
    if page.suffix == ".md"
]
CODE = re.compile(r"```.*?```|`[^`\n]*`", flags=re.DOTALL)
LINK = re.compile(r"\[(?:[^\]]|\n)+?\]\(([^)\s]+)\)")


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The names by which a page's headings can be linked to."""
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def examples(page: str) -> str:
    """Only what is shown as code."""
    return "\n".join(CODE.findall(text_of(page)))


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_and_a_heading_that_there_are(page):
    broken = []
    for link in LINK.findall(CODE.sub("", text_of(page))):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        file, _, anchor = link.partition("#")
        target = (ROOT / page).parent / file if file else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_document_is_linked_from_another():
    linked = {
        ((ROOT / page).parent / link.partition("#")[0]).resolve()
        for page in PAGES
        for link in LINK.findall(CODE.sub("", text_of(page)))
        if "://" not in link
    }
    docs = [page for page in PAGES if page.startswith("docs/") and not page.endswith("README.md")]
    assert [page for page in docs if (ROOT / page).resolve() not in linked] == []


def test_every_command_of_datahall_that_is_shown_exists():
    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    shown = {
        word for page in PAGES for word in re.findall(r"(?:^|[`$\s])datahall ([a-z]+)\b", examples(page))
    }
    assert {"submit", "describe", "wait"} <= shown
    # `helm install datahall charts/...` and its like.
    assert shown - known - {"charts"} == set()


def test_every_make_target_that_is_shown_exists():
    known = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), flags=re.MULTILINE))
    shown = {
        word for page in PAGES for word in re.findall(r"\bmake (?:-s )?([a-z][a-z-]+)\b", examples(page))
    }
    assert {"demo", "test"} <= shown
    assert shown - known == set()


def test_every_variable_that_is_named_is_read_somewhere():
    named = {name for page in PAGES for name in re.findall(r"\bDATAHALL_[A-Z_]+\b", text_of(page))}
    sources = [
        path.read_text(encoding="utf-8")
        for room in (
            "operator/datahall",
            "trainer_image",
            "cuda_kernels",
            "local_cluster",
            "examples",
            "bench",
        )
        for path in (ROOT / room).rglob("*")
        if path.suffix in (".py", ".go")
    ]
    put_together = {f"DATAHALL_{image.name.upper()}_IMAGE" for image in images.IMAGES}
    put_together |= {f"DATAHALL_{field.name.upper()}" for field in dataclasses.fields(Limits)}
    read = {name for name in named if any(f'"{name}"' in source for source in sources)}
    assert named - read - put_together == set()
