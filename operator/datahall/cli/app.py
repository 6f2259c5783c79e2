"""The commands: names, options, help. What they do is in `verbs`, imported once a command runs."""

from __future__ import annotations

from typing import Annotated

import typer

from datahall.cli.options import Connection, Context, Kubeconfig, Namespace, Output, seconds
from datahall.cli.session import run

app = typer.Typer(
    name="datahall",
    help="Train, watch and serve models on a Kubernetes cluster that runs Datahall.",
    epilog="Exit codes: 0 done, 1 the object failed, 2 misuse, 3 timeout, 4 cluster out of reach or access denied.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="DURATION",
        parser=seconds,
        help="Give up after so long: 90s, 20m, 1h30m.",
        show_default=False,
    ),
]
JobReferences = Annotated[
    list[str], typer.Argument(metavar="NAME", help="TrainingJobs, as NAME or tj/NAME.", show_default=False)
]


@app.command()
def submit(
    *,
    file: Annotated[
        list[str],
        typer.Option("--filename", "-f", metavar="FILE", help="YAML or JSON file; - is standard input."),
    ],
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until jobs have succeeded and services are ready.")
    ] = False,
    timeout: Timeout = None,
    force: Annotated[
        bool, typer.Option("--force", help="Take over fields that another tool (kubectl, Argo CD) owns.")
    ] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Create or change objects from YAML or JSON files."""
    from datahall.cli import verbs

    run(
        Connection(namespace, context, kubeconfig),
        lambda client: verbs.submit(
            client, file, namespace=namespace, force=force, wait_for_it=wait, timeout_seconds=timeout
        ),
    )


@app.command("list")
def list_(
    *,
    kind: Annotated[
        str | None,
        typer.Argument(metavar="KIND", help="Only tj, infs or queue; jobs and services if absent."),
    ] = None,
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Every namespace.")] = False,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print.")] = Output.TABLE,
    no_headers: Annotated[bool, typer.Option("--no-headers", help="Rows alone.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """List jobs and services with state and progress."""
    from datahall.cli import verbs
    from datahall.sdk.kinds import INFERENCE_SERVICE, TRAINING_JOB, kind_of

    run(
        Connection(namespace, context, kubeconfig),
        lambda client: verbs.list_(
            client,
            [kind_of(kind)] if kind else [TRAINING_JOB, INFERENCE_SERVICE],
            all_namespaces=all_namespaces,
            output=output,
            headers=not no_headers,
        ),
    )


@app.command()
def queue(
    *,
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="One Queue with its waiting jobs; all Queues if absent."),
    ] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="table, json or yaml.")] = Output.TABLE,
    no_headers: Annotated[bool, typer.Option("--no-headers", help="Rows of the tree alone.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show the quota tree: held, borrowed, left, and whose turn is next.

    With a NAME: that Queue, and its waiting jobs in order.
    """
    from datahall.cli import verbs

    _only_whole(output, "queue")
    run(
        Connection(namespace, context, kubeconfig),
        lambda client: verbs.queue(client, name, output=output, headers=not no_headers),
    )


@app.command()
def moves(
    *,
    all_namespaces: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="Waiting jobs of every namespace.")
    ] = False,
    output: Annotated[Output, typer.Option("--output", "-o", help="table, json or yaml.")] = Output.TABLE,
    no_headers: Annotated[bool, typer.Option("--no-headers", help="Rows alone.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show which running jobs would move so that waiting ones find room in one piece.

    A dry run: from where to where, what that costs, and when it is due. Nobody is ended before.
    """
    from datahall.cli import verbs

    _only_whole(output, "moves")
    run(
        Connection(namespace, context, kubeconfig),
        lambda client: verbs.moves(
            client, all_namespaces=all_namespaces, output=output, headers=not no_headers
        ),
    )


@app.command()
def explain(
    *,
    reference: Annotated[
        str, typer.Argument(metavar="NAME|infs/NAME", help="What; a bare NAME is a job, else a service.")
    ],
    output: Annotated[Output, typer.Option("--output", "-o", help="table, json or yaml.")] = Output.TABLE,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Tell why one job or service waits, runs or ended, and what helps.

    Who is ahead of it, when it starts, what ends it, who ended it before.
    """
    from datahall.cli import verbs

    _only_whole(output, "explain")
    run(
        Connection(namespace, context, kubeconfig),
        lambda client: verbs.explain(client, reference, output=output),
    )


@app.command()
def describe(
    *,
    reference: Annotated[
        str, typer.Argument(metavar="tj/NAME|infs/NAME|queue/NAME", help="What; a bare NAME is looked for.")
    ],
    output: Annotated[Output, typer.Option("--output", "-o", help="table, json or yaml.")] = Output.TABLE,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Say why one object waits, runs or failed.

    And all about it: placement, progress, checkpoint, output, conditions, pods and recent events.
    """
    from datahall.cli import verbs

    _only_whole(output, "describe")
    run(
        Connection(namespace, context, kubeconfig),
        lambda client: verbs.describe(client, reference, output=output),
    )


@app.command()
def logs(
    *,
    reference: Annotated[str, typer.Argument(metavar="NAME|infs/NAME", help="A TrainingJob, or infs/NAME.")],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Wait for pods, go on through restarts, until the end.")
    ] = False,
    rank: Annotated[
        int | None, typer.Option("--rank", min=0, help="Only this worker.", show_default=False)
    ] = None,
    tail: Annotated[
        int | None,
        typer.Option("--tail", min=0, help="Only so many of the lines that are there.", show_default=False),
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Print what the workers wrote.

    Lines of several workers carry their rank.
    """
    from datahall.cli import verbs

    run(
        Connection(namespace, context, kubeconfig),
        lambda client: verbs.logs(
            client,
            *verbs.certain(verbs.parse_reference(reference)),
            rank=rank,
            follow=follow,
            tail=tail,
        ),
    )


@app.command()
def wait(
    *,
    reference: Annotated[str, typer.Argument(metavar="NAME|infs/NAME", help="A TrainingJob, or infs/NAME.")],
    for_: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="STATE",
            help="A condition (succeeded, running, ready, ...) or deleted; the happy end if absent.",
            show_default=False,
        ),
    ] = None,
    timeout: Timeout = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Wait for a state, with a progress bar.

    It fails as soon as the state cannot come any more. Where stderr is no terminal, progress is plain lines.
    """
    from datahall.cli import verbs

    run(
        Connection(namespace, context, kubeconfig),
        lambda client: verbs.wait(
            client,
            *verbs.certain(verbs.parse_reference(reference)),
            for_=for_,
            timeout_seconds=timeout,
        ),
    )


@app.command()
def predict(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The InferenceService.")],
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE",
            help="Image files, or text files of one input each; - is standard input, one text a line or one image.",
            show_default=False,
        ),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option("--text", "-t", help="A text; may be given many times.", show_default=False),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            "--url", help="Ask this server directly; else through the API server.", show_default=False
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="DURATION",
            parser=seconds,
            help="Longest wait for the answer; 30s if absent.",
            show_default=False,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print every class as JSON.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Ask an InferenceService.

    Prints input, label and score, one line for each input.
    """
    from datahall.cli import verbs

    if not files and not text:
        raise typer.BadParameter("give a FILE, - or --text")
    run(
        Connection(namespace, context, kubeconfig),
        lambda client: verbs.predict(
            client,
            name.removeprefix("infs/"),
            files or [],
            text or [],
            url=url,
            timeout_seconds=30.0 if timeout is None else timeout,
            as_json=json,
        ),
    )


@app.command()
def suspend(
    *,
    names: JobReferences,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Stop TrainingJobs and free their GPUs.

    The workers save a checkpoint before they leave.
    """
    from datahall.cli import verbs

    run(
        Connection(namespace, context, kubeconfig),
        lambda client: verbs.set_suspend(client, names, suspend=True),
    )


@app.command()
def resume(
    *,
    names: JobReferences,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Let suspended TrainingJobs go on."""
    from datahall.cli import verbs

    run(
        Connection(namespace, context, kubeconfig),
        lambda client: verbs.set_suspend(client, names, suspend=False),
    )


@app.command()
def delete(
    *,
    references: Annotated[
        list[str],
        typer.Argument(metavar="NAME|KIND/NAME", help="A bare NAME is a TrainingJob.", show_default=False),
    ],
    wait: Annotated[bool, typer.Option("--wait", help="Wait until they are gone.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Delete objects; trained models stay."""
    from datahall.cli import verbs

    run(
        Connection(namespace, context, kubeconfig),
        lambda client: verbs.delete(client, references, wait_for_it=wait),
    )


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as version_of

    from datahall.api import API_VERSION

    typer.echo(f"datahall {version_of('datahall')} ({API_VERSION})")


def _only_whole(output: Output, command: str) -> None:
    """Refuse the forms that only a list has."""
    if output in {Output.WIDE, Output.NAME}:
        raise typer.BadParameter(f"{command} has no {output} form", param_hint="'--output' / '-o'")
