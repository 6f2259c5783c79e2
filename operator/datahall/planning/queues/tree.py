"""The quota tree: specifications and charges in, verdicts out. Each change costs the depth of the tree.

It is sound against whatever people write:

* A queue whose parent does not exist, and each queue of a circle of parents, stands alone as a root: it works within
  its own quota, borrows and lends nothing, and `trouble` says why. Those beneath it stay beneath it.
* Limits may be lowered below use. Nothing is taken back by that alone; room is negative and nothing new fits.
* A queue may be removed or hung elsewhere under use. What is charged to it stays charged to its name, weighs on
  nobody else while the queue does not exist, and counts again when it comes back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from datahall.planning.queues.node import QueueNode, Structure, capacity_of, chain, first_refusal, room
from datahall.planning.queues.spec import JOULES_PER_DAY, Amounts, QueueSpec, family
from datahall.planning.queues.verdicts import (
    Account,
    Fits,
    MissingParent,
    ParentsInCircle,
    RefusalReason,
    Refused,
    Trouble,
    Verdict,
)


@dataclass(slots=True)
class _Answers:
    """What was asked about the queues beneath one root since something changed there: many gangs ask the same.

    Attributes:
        number: No two are the same.
        rooms: By queue and resource.
        verdicts: By queue and amounts.
    """

    number: int
    rooms: dict[tuple[str, str], int | None] = field(default_factory=dict)
    verdicts: dict[tuple[str, tuple[tuple[str, int], ...]], Verdict] = field(default_factory=dict)


class QueueTree:
    """All queues, what they are granted and what they hold."""

    def __init__(self, *, spent: Iterable[str] = (JOULES_PER_DAY,)) -> None:
        """Begin without queues.

        Args:
            spent: Resources that are gone once used, and come back with time alone: no eviction gives them back.
        """
        self.spent = frozenset(spent)
        self.version = 0
        """Grows with every change of a specification."""
        self._nodes: dict[str, QueueNode] = {}
        self._structure = Structure()
        self._answers: dict[str, _Answers] = {}
        self._answers_made = 0
        self._tops: dict[str, str] = {}
        self._tops_version = -1

    # ---- deltas

    def upsert(self, spec: QueueSpec) -> bool:
        """Take in a queue as it is now; return whether anything changed."""
        node = self._node(spec.name)
        if node.spec == spec:
            return False
        self._replace(node, spec)
        return True

    def remove(self, name: str) -> bool:
        """Forget what a queue is granted; what is charged to it stays charged. Return whether it was known."""
        node = self._nodes.get(name)
        if node is None or node.spec is None:
            return False
        self._replace(node, None)
        self._forget(node)
        return True

    def charge(self, queue: str, amounts: Amounts, sign: int) -> None:
        """Add use, or take it away again; nothing is checked against quota, because it is so.

        Args:
            queue: The queue's name; it need not exist.
            amounts: Resource to amount.
            sign: 1 to add, -1 to take away.

        Raises:
            ValueError: More is taken away than was charged. Nothing has changed then.
        """
        node = self._node(queue)
        self._answers.pop(node.top(), None)
        for resource, amount in amounts.items():
            if node.charged.get(resource, 0) + sign * amount < 0:
                self._forget(node)
                raise ValueError(
                    f"queue {queue}: {-sign * amount} of {resource} cannot be taken back, "
                    f"{node.charged.get(resource, 0)} are charged"
                )
        for resource, amount in amounts.items():
            if amount:
                node.charge(resource, sign * amount)
        if node.spec is None:
            self._forget(node)

    # ---- questions

    def verdict(self, queue: str, amounts: Amounts) -> Verdict:
        """Whether a queue may take amounts now, all of them together.

        Args:
            queue: The queue's name.
            amounts: Resource to amount, 0 or more, with at most one member of each family: a gang has one GPU model.

        Raises:
            ValueError: An amount is negative, or two members of a family are asked for at once.
        """
        verdicts = self._answers_of(queue).verdicts
        key = queue, tuple(amounts.items())
        found = verdicts.get(key)
        if found is None:
            found = verdicts[key] = self._verdict(queue, amounts)
        return found

    def _verdict(self, queue: str, amounts: Amounts) -> Verdict:
        node = self._nodes.get(queue)
        _check(amounts)
        borrowed: dict[str, int] = {}
        refused: list[str] = []
        for resource, asked in amounts.items():
            if asked == 0:
                continue
            if node is None or node.spec is None or node.denies(resource):
                refused.append(resource)
                continue
            links = chain(node, resource)
            if first_refusal(links, asked) is not None:
                refused.append(resource)
            elif links:
                line = links[0][1]
                beyond = line.own + asked - line.nominal
                if beyond > 0:
                    borrowed[resource] = min(beyond, asked)
        if not refused:
            return Fits(borrowed)
        first = min(refused)
        return self._refusal(queue, first, amounts[first])

    def room(self, queue: str, resource: str) -> int | None:
        """The largest amount that a queue may take now; negative after limits were lowered; None for no limit."""
        rooms = self._answers_of(queue).rooms
        key = queue, resource
        if key not in rooms:
            rooms[key] = self._room(queue, resource)
        return rooms[key]

    def answers_version(self, queue: str) -> int:
        """Changes with every change after which the same question about a queue may have another answer."""
        return self._answers_of(queue).number

    def _room(self, queue: str, resource: str) -> int | None:
        node = self._nodes.get(queue)
        if node is None or node.spec is None or node.denies(resource):
            return 0
        links = chain(node, resource)
        return room(links) if links else None

    def beyond_nominal(self, queue: str, resource: str) -> int:
        """How much a queue itself holds beyond its nominal quota, in the entry of a resource; negative for less.

        0 for a resource that nothing limits: nobody has borrowed what is not granted.
        """
        node = self._nodes.get(queue)
        if node is None or node.spec is None or not chain(node, resource):
            return 0
        line = node.lines.get(node.route(resource))
        return 0 if line is None else line.own - line.nominal

    def entry(self, queue: str, resource: str) -> str:
        """The entry of a queue under which a resource is accounted."""
        node = self._nodes.get(queue)
        return resource if node is None else node.route(resource)

    def spec(self, name: str) -> QueueSpec | None:
        """What a queue is granted, if it exists."""
        node = self._nodes.get(name)
        return None if node is None else node.spec

    def names(self) -> list[str]:
        """Queues that exist, by name."""
        return sorted(name for name, node in self._nodes.items() if node.spec is not None)

    def charged(self, queue: str) -> dict[str, int]:
        """What is charged to a queue itself, by resource as it was charged."""
        node = self._nodes.get(queue)
        return {} if node is None else dict(sorted(node.charged.items()))

    def accounts(self, queue: str) -> dict[str, Account]:
        """The entries of a queue that are named or in use, by name."""
        node = self._nodes.get(queue)
        if node is None:
            return {}
        found = {}
        for entry, line in sorted(node.lines.items()):
            links = chain(node, entry)
            left = room(links) if links else None
            found[entry] = Account(
                line.nominal, line.own, line.quota, line.used, line.lent, line.overflow, left
            )
        return found

    def parent(self, name: str) -> str | None:
        """The queue that a queue really borrows from; None for a root and for one that stands alone."""
        node = self._nodes.get(name)
        return None if node is None or node.parent is None else node.parent.name

    def children(self, name: str) -> list[str]:
        """The queues that borrow from a queue, by name."""
        node = self._nodes.get(name)
        return [] if node is None or node.spec is None else [child.name for child in node.children()]

    def trouble(self, name: str) -> Trouble | None:
        """What is wrong with a queue's place in the tree, if anything is."""
        node = self._nodes.get(name)
        if node is None or node.spec is None or node.above is None:
            return None
        if node.in_circle:
            names = [each.name for each in _circle(node)]
            first = names.index(min(names))
            return ParentsInCircle((*names[first:], *names[:first]))
        return MissingParent(name, node.spec.parent) if node.above.spec is None else None

    def node(self, name: str) -> QueueNode | None:
        """A queue's node, for the other modules of this room; only they may look inside."""
        node = self._nodes.get(name)
        return node if node is not None and node.spec is not None else None

    def _refusal(self, queue: str, resource: str, asked: int) -> Refused:
        node = self._nodes.get(queue)
        if node is None or node.spec is None:
            return Refused(RefusalReason.QUEUE_NOT_FOUND, queue, queue, resource, resource, asked)
        entry = node.route(resource)
        links = chain(node, resource)
        if node.denies(resource):
            return Refused(RefusalReason.NOT_GRANTED, queue, queue, resource, entry, asked)
        most = capacity_of(node, resource)
        if not most and not any(line.named for _, line in links):
            left = room(links)
            return Refused(RefusalReason.NOT_GRANTED, queue, queue, resource, entry, asked, room=left)
        failed = first_refusal(links, asked)
        assert failed is not None, "only a refused amount comes here"
        own_line, (where, there) = links[0][1], links[failed]
        if own_line.own + asked <= own_line.nominal:
            reason = RefusalReason.LENT_AWAY
        elif failed < len(links) - 1:
            reason = RefusalReason.BORROWING_LIMIT
        elif failed == 0:
            reason = RefusalReason.QUOTA_IN_USE
        else:
            reason = RefusalReason.NOTHING_TO_BORROW
        return Refused(
            reason,
            queue,
            where.name,
            resource,
            entry,
            asked,
            room=room(links),
            most=most,
            nominal=own_line.nominal,
            own=own_line.own,
            quota_there=there.quota,
            used_there=there.used,
            borrowing_limit_there=there.borrowing_limit,
        )

    def _answers_of(self, queue: str) -> _Answers:
        """What was asked since the last change of the tree that a queue is part of."""
        if self._tops_version != self._structure.version:
            self._tops_version, self._tops = self._structure.version, {}
        top = self._tops.get(queue)
        if top is None:
            node = self._nodes.get(queue)
            top = self._tops[queue] = queue if node is None else node.top()
        found = self._answers.get(top)
        if found is None:
            self._answers_made += 1
            found = self._answers[top] = _Answers(self._answers_made)
        return found

    # ---- the shape of the tree

    def _node(self, name: str) -> QueueNode:
        found = self._nodes.get(name)
        if found is None:
            found = self._nodes[name] = QueueNode(name, self._structure)
        return found

    def _forget(self, node: QueueNode) -> None:
        """Drop a node that stands for nothing any more."""
        if node.spec is None and not node.charged and not node.below:
            self._nodes.pop(node.name, None)

    def _replace(self, node: QueueNode, spec: QueueSpec | None) -> None:
        """Change a queue while its lines are out of its parent's sight, and put each queue concerned in its place."""
        self.version += 1
        self._answers = {}
        loose = _circle(node) if node.in_circle else [node]
        for each in loose:
            _take_off(each)
        node.respecify(spec)  # which its neighbours notice, too: the version grows
        above = None if spec is None or not spec.parent else self._node(spec.parent)
        before, node.above = node.above, above
        if before is not above:
            if before is not None:
                del before.below[node.name]
                self._forget(before)
            if above is not None:
                above.below[node.name] = node
        # The others first: without this queue's link there is no circle among them.
        for each in loose:
            if each is not node:
                _hang(each)
        if above is None:
            return
        if _is_own_ancestor(node):
            # From the top down, so that no line has far to go.
            for each in reversed(_circle(node)):
                _take_off(each)
                each.in_circle = True
        else:
            _hang(node)


def _take_off(node: QueueNode) -> None:
    """Take a queue out of its parent's sight."""
    node.send(-1)
    node.up, node.in_circle = None, False
    node.structure.version += 1


def _hang(node: QueueNode) -> None:
    """Show a queue to its parent."""
    node.up = node.above
    node.structure.version += 1
    node.send(1)


def _is_own_ancestor(node: QueueNode) -> bool:
    """Whether its parents lead back to it. Parents that go in a circle without it end the search."""
    here = node.above
    while here is not None and here is not node and not here.in_circle:
        here = here.above
    return here is node


def _circle(node: QueueNode) -> list[QueueNode]:
    """The queues of the circle that a queue is part of, each followed by its parent."""
    found = [node]
    here = node.above
    while here is not None and here is not node:
        found.append(here)
        here = here.above
    return found


def _check(amounts: Amounts) -> None:
    if len(amounts) == 1 and min(amounts.values()) >= 0:
        return
    families: set[str] = set()
    for resource, asked in amounts.items():
        if asked < 0:
            raise ValueError(f"{resource}: {asked} cannot be asked for; amounts are 0 or more")
        if asked and ":" in resource:
            of = family(resource)
            if of in families:
                raise ValueError(f"{resource}: one verdict is about one member of family {of}, and names two")
            families.add(of)
