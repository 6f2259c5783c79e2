"""`datahall`, also `kubectl datahall`: what people do with TrainingJobs, InferenceServices and Queues, in a terminal.

Nothing but typer is imported until a command runs, so that `datahall --help` and completion answer at once.
"""


def main() -> None:
    """The entry point of both programs."""
    from datahall.cli.app import app

    app()
