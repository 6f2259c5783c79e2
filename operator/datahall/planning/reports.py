"""Where a queue stands, for its status and for people."""

from __future__ import annotations

from datahall.planning.books import Books
from datahall.planning.holdings import GPU_FAMILY
from datahall.planning.queues import messages
from datahall.planning.queues.spec import JOULES_PER_DAY, WATTS, Amounts
from datahall.planning.queues.verdicts import Account
from datahall.planning.types import WHOLE_GPU_MILLI, QueueEntry, QueueReport
from datahall.planning.waiting import WaitingLine


def queue_report(
    books: Books, line: WaitingLine, name: str, now_seconds: float, *, held_for: Amounts
) -> QueueReport | None:
    """Where a queue stands; None for one that does not exist.

    Args:
        books: The planner's memory.
        line: Who waits.
        name: The queue.
        now_seconds: The time, in seconds since the epoch.
        held_for: What of its charges is only held for gangs that have not started, by entry.
    """
    tree = books.tree
    if tree.spec(name) is None:
        return None
    accounts = tree.accounts(name)
    share = books.fairness.share(name, now_seconds)
    trouble = tree.trouble(name)
    empty = Account(0, 0, 0, 0, 0, 0, None)
    return QueueReport(
        gpus={
            entry.partition(":")[2]: _entry(account, WHOLE_GPU_MILLI, held_for.get(entry, 0))
            for entry, account in accounts.items()
            if entry.startswith(GPU_FAMILY)
        },
        watts=_entry(accounts.get(WATTS, empty), 1, held_for.get(WATTS, 0)),
        joules=_entry(accounts.get(JOULES_PER_DAY, empty), 1, 0),
        share=share.beyond,
        total_share=share.total,
        waiting=line.count(name),
        held=books.holdings.count(name),
        parent=tree.parent(name) or "",
        trouble="" if trouble is None else messages.trouble(trouble),
    )


def _entry(account: Account, per: int, held_for: int) -> QueueEntry:
    used = account.own - held_for
    borrowed = 0 if account.room is None else max(0, used - account.nominal)
    short = 0 if account.room is None else max(0, -account.room)
    return QueueEntry(
        nominal=account.nominal // per,
        used=-(-used // per),
        borrowed=-(-borrowed // per),
        available=None if account.room is None else max(0, account.room) // per,
        over=-(-min(short, borrowed) // per),
    )
