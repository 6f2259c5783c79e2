"""Who gives back what was borrowed, and in which order.

A queue *is within its rights* for an amount if the amount is within its own nominal quota, or if a queue above it, with
the amount, stays within its quota: then the pool further up owes it that much. Somebody has borrowed it, and the
pigeonhole says who: where a pool is used beyond its quota, its owner holds more than its nominal, or a child uses more
than its quota; and so on down to queues that hold more than their nominal. Only those are named. A queue that borrows
from a neighbour inside a subtree which as a whole stays within its quota owes nothing to those outside.

Nothing is evicted here. The caller takes back from the first queue that it can, uncharges, and asks again: with each
step the order may change, and once the amount fits, the verdict says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from datahall.planning.queues.node import Line, Links, QueueNode, capacity, chain, first_refusal
from datahall.planning.queues.spec import Amounts
from datahall.planning.queues.tree import QueueTree

_Rank = tuple[tuple[float, str], ...]
"""Along the path down to a queue: minus the share, and the name. Smaller gives back first."""


def borrowed_share(tree: QueueTree, queue: str) -> float:
    """How far a queue, with all beneath it, is beyond its quota: its dominant share of what its parent could lend.

    The largest, over resources, of (use - quota) / (the most that the parent could ever lend), divided by the weight:
    Kueue's fair sharing. 0 for a queue within its quota and for a root.
    """
    node = tree.node(queue)
    return 0.0 if node is None else _share(node)


def reclaimable(tree: QueueTree, queue: str, amounts: Amounts) -> tuple[str, ...]:
    """The queues from which a queue may take back, so that amounts fit that do not fit now.

    A queue whose amounts are all within its nominal quota is always served in the end by evicting from these queues
    alone, asked again after each step.

    Args:
        tree: The tree.
        queue: The queue that asks.
        amounts: As for `QueueTree.verdict`.

    Returns:
        Nearest in the tree first, there the one most over its share first; each holds more than its nominal quota. The
        queue itself is among them if it borrowed what it misses under another model, from a pool that is `Any`.
        Nothing if the amounts fit, if the queue is not within its rights, or if what is missing is spent, not held.
    """
    node = tree.node(queue)
    if node is None:
        return ()
    ranks: dict[str, tuple[int, _Rank]] = {}
    for resource, asked in amounts.items():
        if asked == 0:
            continue
        if node.denies(resource):
            return ()
        links = chain(node, resource)
        if first_refusal(links, asked) is None:
            continue
        owing = {} if resource in tree.spent else _owing(links, asked)
        if not owing:
            return ()
        for name, rank in owing.items():
            ranks[name] = min(rank, ranks.get(name, rank))
    return tuple(sorted(ranks, key=lambda name: ranks[name]))


def _owing(links: Links, asked: int) -> dict[str, tuple[int, _Rank]]:
    """The queues that owe an amount of one resource, with their distance and rank; nothing without a right to it."""
    failed = first_refusal(links, asked)
    assert failed is not None, "only a refused amount comes here"
    reaching = [asked]
    for _, line in links[:failed]:
        reaching.append(reaching[-1] - max(0, line.kept - line.used))
    nearest = failed
    while nearest > 0 and _beyond(links[nearest - 1][1], reaching[nearest - 1]):
        nearest -= 1
    own = links[0][1]
    if nearest == 0 and own.own + asked > own.nominal:
        return {}
    found: dict[str, tuple[int, _Rank]] = {}
    for distance in range(nearest, failed + 1):
        for borrower, rank in _borrowers(*links[distance]):
            found[borrower.name] = min((distance, rank), found.get(borrower.name, (distance, rank)))
    return found


def _beyond(line: Line, asked: int) -> bool:
    return line.used + asked > line.quota


def _borrowers(pool: QueueNode, line: Line) -> Iterator[tuple[QueueNode, _Rank]]:
    """Queues beneath a pool, or its owner, that hold more than their nominal and make the pool overflow."""
    unseen: list[tuple[QueueNode, Line, _Rank]] = [(pool, line, ())]
    while unseen:
        node, line, rank = unseen.pop()
        if line.own > line.nominal:
            share = _ratio(line.own - line.nominal, capacity(chain(node, line.entry)))
            yield node, (*rank, (-share, node.name))
        for child in node.children():
            for entry, lower in child.lines.items():
                if _beyond(lower, 0) and node.route(entry) == line.entry:
                    unseen.append((child, lower, (*rank, (-_share(child), child.name))))


def _share(node: QueueNode) -> float:
    parent = node.parent
    if parent is None or node.spec is None:
        return 0.0
    largest = 0.0
    for entry, line in node.lines.items():
        if _beyond(line, 0):
            links = chain(parent, entry)
            if links:
                largest = max(largest, _ratio(line.used - line.quota, capacity(links)))
    return largest / node.spec.weight


def _ratio(amount: int, of: int) -> float:
    return amount / of if of > 0 else math.inf
