"""What each command does, given a client: fetch, print. The commands themselves (`app`) only parse."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

from datahall.cli import output as output_
from datahall.cli import rows, words
from datahall.cli.move_pages import moves_page
from datahall.cli.options import Output
from datahall.cli.page import page
from datahall.cli.progress import reporter
from datahall.cli.queue_pages import line_page, tree_page
from datahall.cli.story import story
from datahall.cli.table import table, wants_colour
from datahall.sdk import (
    AsyncClient,
    MisuseError,
    NotFoundError,
    TrainingJob,
    UnreadableError,
    read_manifests,
    state_of,
)
from datahall.sdk.kinds import INFERENCE_SERVICE, QUEUE, TRAINING_JOB, Kind, kind_of, typed
from datahall.sdk.manifests import parse_manifests

if TYPE_CHECKING:
    from datahall.sdk.kinds import Typed, Workload

STANDARD_INPUT = "-"


def parse_reference(text: str, *, default: Kind | None = TRAINING_JOB) -> tuple[Kind | None, str]:
    """`tj/digits` -> TrainingJob, digits; a bare name has the default kind.

    Raises:
        MisuseError: no such kind, or no name.
    """
    before, slash, after = text.partition("/")
    kind, name = (kind_of(before), after) if slash else (default, before)
    if not name or "/" in name:
        raise MisuseError(f"{text!r} names no object; write NAME or KIND/NAME, such as tj/digits")
    return kind, name


def certain(reference: tuple[Kind | None, str]) -> tuple[Kind, str]:
    """A reference whose kind has a default."""
    kind, name = reference
    assert kind is not None
    return kind, name


async def submit(
    client: AsyncClient,
    files: Sequence[str],
    *,
    namespace: str | None,
    force: bool,
    wait_for_it: bool,
    timeout_seconds: float | None,
) -> None:
    """Apply every object of the files in their order; then, if asked, wait for the happy end of each."""
    bodies: list[dict[str, Any]] = []
    for file in files:
        if file == STANDARD_INPUT:
            bodies += parse_manifests(sys.stdin.read(), source="standard input")
        else:
            bodies += read_manifests(file)
    submitted: list[Typed] = []
    for body in bodies:
        submitted.append(await client.submit(body, namespace=namespace, force=force))
        typer.echo(f"{body['kind'].lower()}/{body['metadata']['name']} submitted")
    if wait_for_it:
        for thing in submitted:
            if thing.kind != QUEUE.name:
                await wait(
                    client,
                    kind_of(thing.kind),
                    thing.metadata.name,
                    for_=None,
                    timeout_seconds=timeout_seconds,
                    namespace=thing.metadata.namespace,
                )


async def list_(
    client: AsyncClient, kinds: Sequence[Kind], *, all_namespaces: bool, output: Output, headers: bool
) -> None:
    """Print the objects of some kinds."""
    found = await asyncio.gather(
        *(client.list_objects(kind.name, all_namespaces=all_namespaces) for kind in kinds)
    )
    if output in {Output.JSON, Output.YAML}:
        bodies = [body for each in found for body in each]
        typer.echo(output_.encoded(output_.object_list(bodies), output))
        return
    if output is Output.NAME:
        for body in (body for each in found for body in each):
            typer.echo(output_.object_name(body))
        return
    tables = [
        _table(kind, bodies, with_namespace=all_namespaces, wide=output is Output.WIDE, headers=headers)
        for kind, bodies in zip(kinds, found, strict=True)
        if bodies
    ]
    if tables:
        typer.echo("\n\n".join(tables))
        return
    what = " or ".join(f"{kind.name}s" for kind in kinds)
    where = "" if all_namespaces or kinds == [QUEUE] else f" in namespace {await client.namespace()}"
    typer.echo(f"There are no {what}{where}.", err=True)


async def describe(client: AsyncClient, reference: str, *, output: Output) -> None:
    """Print one page; a bare name is looked for among jobs, then services, then queues."""
    kind, name = parse_reference(reference, default=None)
    candidates = [kind] if kind is not None else [TRAINING_JOB, INFERENCE_SERVICE, QUEUE]
    for place, candidate in enumerate(candidates):
        try:
            described = await client.describe(candidate.name, name)
        except NotFoundError:
            if place < len(candidates) - 1:
                continue
            if kind is not None:
                raise
            where = await client.namespace()
            raise NotFoundError(
                f"there is no TrainingJob or InferenceService {name} in namespace {where}, and no Queue"
            ) from None
        if output is Output.TABLE:
            typer.echo(page(described, words.now(), colour=wants_colour()))
        else:
            typer.echo(output_.encoded(output_.description(described), output))
        return


async def explain(client: AsyncClient, reference: str, *, output: Output) -> None:
    """Print the story of one job or service; a bare name is looked for among jobs, then services."""
    kind, name = parse_reference(reference, default=None)
    if kind is QUEUE:
        raise MisuseError(f"a Queue does not wait; see `datahall queue {name}`")
    try:
        told = await client.explain(name, kind=(kind or TRAINING_JOB).name)
    except NotFoundError:
        if kind is not None:
            raise
        try:
            told = await client.explain(name, kind=INFERENCE_SERVICE.name)
        except NotFoundError:
            where = await client.namespace()
            raise NotFoundError(
                f"there is no TrainingJob or InferenceService {name} in namespace {where}"
            ) from None
    if output is Output.TABLE:
        typer.echo(story(told, words.now(), colour=wants_colour()))
    else:
        typer.echo(output_.encoded(output_.document(told), output))


async def queue(client: AsyncClient, name: str | None, *, output: Output, headers: bool) -> None:
    """Print the quota tree, or one queue with its line."""
    if name is not None:
        told = await client.queue_line(name.removeprefix("queue/"))
        if output is Output.TABLE:
            typer.echo(line_page(told, words.now()))
        else:
            typer.echo(output_.encoded(output_.document(told), output))
        return
    queues = await client.queue_tree()
    if output is not Output.TABLE:
        typer.echo(output_.encoded({"queues": output_.document(queues)}, output))
    elif queues:
        typer.echo(tree_page(queues, headers=headers))
    else:
        typer.echo("There are no Queues.", err=True)


async def moves(client: AsyncClient, *, all_namespaces: bool, output: Output, headers: bool) -> None:
    """Print which jobs would move, and for whom."""
    plans = await client.moves(all_namespaces=all_namespaces)
    if output is not Output.TABLE:
        typer.echo(output_.encoded({"plans": output_.document(plans)}, output))
    elif plans:
        typer.echo(moves_page(plans, words.now(), headers=headers))
    else:
        where = "" if all_namespaces else f" of namespace {await client.namespace()}"
        typer.echo(f"No job would move for a waiting job{where}.", err=True)


async def logs(
    client: AsyncClient, kind: Kind, name: str, *, rank: int | None, follow: bool, tail: int | None
) -> None:
    """Print log lines; a new gang generation is announced on stderr."""
    generation: int | None = None
    stream = client.logs(name, rank=rank, follow=follow, tail=tail, kind=kind.name)
    async with aclosing(cast("Any", stream)) as lines:
        async for line in lines:
            if generation is not None and line.generation is not None and line.generation > generation:
                typer.echo(f"--- the gang restarted: generation {line.generation} ---", err=True)
            generation = max(generation or 0, line.generation or 0) or None
            typer.echo(str(line))


async def wait(
    client: AsyncClient,
    kind: Kind,
    name: str,
    *,
    for_: str | None,
    timeout_seconds: float | None,
    namespace: str | None = None,
) -> None:
    """Wait with a bar or with lines; print the end in one line."""
    with reporter(asyncio.get_running_loop().time) as report:
        workload = await client.wait(
            name,
            for_=for_,
            timeout_seconds=timeout_seconds,
            on_progress=report,
            kind=kind.name,
            namespace=namespace,
        )
    typer.echo(f"{kind.name.lower()}/{name} {_ending(workload)}")


async def predict(
    client: AsyncClient,
    name: str,
    sources: Sequence[str],
    texts: Sequence[str],
    *,
    url: str | None,
    timeout_seconds: float,
    as_json: bool,
) -> None:
    """Ask the service; print one line per input."""
    asked = [*((text, text) for text in texts)]
    named: list[tuple[str, str | bytes]] = [*asked]
    for source in sources:
        named += _read_input(source)
    answer = await client.predict(
        name, [given for _, given in named], url=url, timeout_seconds=timeout_seconds
    )
    if as_json:
        results = [
            {
                "input": label,
                "classes": [{"label": each.label, "score": each.score} for each in result.classes],
            }
            for (label, _), result in zip(named, answer.results, strict=False)
        ]
        value = {"model": answer.model, "digest": answer.digest, "results": results}
        typer.echo(output_.encoded(value, Output.JSON))
        return
    lines = [
        (
            _shortened(label),
            result.label if result.label is not None else "(no class above the threshold)",
            f"{result.score:.3f}" if result.score is not None else words.NOTHING,
        )
        for (label, _), result in zip(named, answer.results, strict=False)
    ]
    typer.echo(table(("INPUT", "LABEL", "SCORE"), lines, headers=False))


async def set_suspend(client: AsyncClient, names: Sequence[str], *, suspend: bool) -> None:
    """Suspend or resume jobs."""
    for reference in names:
        kind, name = certain(parse_reference(reference))
        if kind is not TRAINING_JOB:
            raise MisuseError(f"a {kind.name} cannot be suspended; only a TrainingJob can")
        await (client.suspend if suspend else client.resume)(name)
        typer.echo(f"trainingjob/{name} {'suspended' if suspend else 'resumed'}")


async def delete(client: AsyncClient, references: Sequence[str], *, wait_for_it: bool) -> None:
    """Delete objects, and wait until they are gone if asked."""
    parsed = [certain(parse_reference(reference)) for reference in references]
    for kind, name in parsed:
        await client.delete(kind.name, name)
        typer.echo(f"{kind.name.lower()}/{name} deleted")
    for kind, name in parsed:
        if wait_for_it and kind is not QUEUE:
            try:
                await client.wait(name, for_="Deleted", kind=kind.name)
            except NotFoundError:
                continue


def _table(
    kind: Kind, bodies: Sequence[dict[str, Any]], *, with_namespace: bool, wide: bool, headers: bool
) -> str:
    at = words.now()
    columns = list(
        {TRAINING_JOB: rows.JOB_COLUMNS, INFERENCE_SERVICE: rows.SERVICE_COLUMNS, QUEUE: rows.QUEUE_COLUMNS}[
            kind
        ]
    )
    namespaced = with_namespace and kind.resource.namespaced
    lines = []
    for body in bodies:
        try:
            thing = typed(kind, body)
        except UnreadableError as error:
            typer.echo(f"datahall: {error}", err=True)
            name = body["metadata"]["name"]
            state = body.get("status", {}).get("state", "Unknown")
            cells = [name, state, *[words.NOTHING] * (len(columns) - 2)]
            message = words.NOTHING
        else:
            cells, message = list(_row(thing, at)), rows.message_cell(thing)
        if namespaced:
            cells.insert(0, body["metadata"].get("namespace", ""))
        lines.append([*cells, message] if wide else cells)
    if namespaced:
        columns.insert(0, "NAMESPACE")
    return table([*columns, rows.MESSAGE] if wide else columns, lines, headers=headers, colour=wants_colour())


def _row(thing: Typed, at: Any) -> tuple[str, ...]:
    match thing.kind:
        case TRAINING_JOB.name:
            return rows.job_row(cast("Any", thing), at)
        case INFERENCE_SERVICE.name:
            return rows.service_row(cast("Any", thing), at)
        case _:
            return rows.queue_row(cast("Any", thing), at)


def _ending(workload: Workload | None) -> str:
    if workload is None:
        return "deleted"
    state = state_of(workload)
    if isinstance(workload, TrainingJob) and workload.status.output is not None:
        metrics = workload.status.output.metrics
        told = [f"{name} {words.number(value)}" for name, value in sorted(metrics.items())]
        return "  ".join([state, *told, workload.status.output.uri])
    return state


def _read_input(source: str) -> list[tuple[str, str | bytes]]:
    """What to ask for a file, or for each line of standard input, and what to call it in the answer."""
    if source == STANDARD_INPUT:
        raw, label = sys.stdin.buffer.read(), "standard input"
    else:
        label = source
        try:
            raw = Path(source).read_bytes()
        except OSError as error:
            raise MisuseError(f"{source}: {error.strerror}") from error
    if not raw:
        raise MisuseError(f"{label}: is empty")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return [(label, raw)]
    if "\0" in text:
        return [(label, raw)]
    if source == STANDARD_INPUT:
        return [(line, line) for line in text.splitlines() if line.strip()]
    return [(label, text.strip())]


def _shortened(label: str, length: int = 60) -> str:
    label = words.lines_of(label)
    return label if len(label) <= length else f"{label[: length - 1]}…"
