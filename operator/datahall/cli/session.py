"""One command's run: a client, the work, and what becomes of its errors.

Exit codes: 0 done; 1 the object failed, or the answer is a failure; 2 misuse (also a rejected manifest, or a name that
does not exist); 3 timeout; 4 the cluster cannot be reached, refuses, or lacks Datahall; 130 interrupted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import typer

from datahall.cli.options import Connection

if TYPE_CHECKING:
    from datahall.sdk import AsyncClient, DatahallError

T = TypeVar("T")

FAILED, MISUSE, TIMEOUT, UNREACHABLE, INTERRUPTED = 1, 2, 3, 4, 130


def run(connection: Connection, work: Callable[[AsyncClient], Awaitable[T]]) -> T:
    """Do the work with a client; an error becomes one sentence on stderr and an exit code."""
    import asyncio

    from datahall.sdk import AsyncClient, DatahallError

    async def inside() -> T:
        async with AsyncClient(
            kubeconfig=connection.kubeconfig, context=connection.context, namespace=connection.namespace
        ) as client:
            return await work(client)

    try:
        return asyncio.run(inside())
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except DatahallError as error:
        tell(error)
        raise typer.Exit(exit_code(error)) from None


def exit_code(error: DatahallError) -> int:
    """The exit code that fits an error."""
    from datahall import sdk

    match error:
        case sdk.WaitTimeout():
            return TIMEOUT
        case sdk.PredictError() if error.kind == "timeout" or error.status == 504:
            return TIMEOUT
        case sdk.PredictError() if 400 <= error.status < 500:
            return MISUSE
        case sdk.UnreachableError() | sdk.DeniedError() | sdk.NotInstalledError():
            return UNREACHABLE
        case sdk.MisuseError() | sdk.RejectedError() | sdk.NotFoundError():
            return MISUSE
        case _:
            return FAILED


def tell(error: DatahallError) -> None:
    """Say what went wrong on stderr; of a failed job, also its last log lines."""
    from datahall.sdk import JobFailed

    typer.echo(f"datahall: {error}", err=True)
    if isinstance(error, JobFailed) and error.failure is not None:
        for line in error.failure.last_log_lines:
            typer.echo(f"  | {line}", err=True)
