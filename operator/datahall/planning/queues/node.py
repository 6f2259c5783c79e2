"""One queue of the tree, and its lines: the arithmetic of lending and borrowing, per resource.

A *line* is the account of one resource at one queue:

    quota    = nominal + what the children lend
    kept     = the part of the quota that is not lent (all beyond the lending limit)
    lent     = quota - kept
    used     = charged to the queue itself + what its children use beyond what they keep
    overflow = used beyond what is kept: this is what the parent sees

Every number follows from the specifications and the charges alone, never from their order: that is why a history of
changes and a tree built anew from its end agree. (The rules are those of Kueue's hierarchical cohorts.)

**What Any means in a tree.** A resource travels up under the name of the entry it is accounted in. Each queue takes it
in under its own entry of that name; else under its own `Any` of that family; else it hands it on under the same name,
with nothing of its own. So names grow coarser on the way up, never finer: once `Any`, it stays `Any`. A parent that
says `gpu:Any` pools all models of its children; one that names `gpu:H100` pools H100 alone; one that says nothing pools
each name apart. What a queue holds under `Any` never draws on a parent's `gpu:H100`, because the queue did not say
which models it lends in return.
"""

from __future__ import annotations

from datahall.planning.queues.spec import QueueSpec, any_member, family


class Line:
    """The account of one resource at one queue.

    Attributes:
        entry: The name of the entry.
        named: Whether the queue has an entry for it. Without one it only hands on.
        nominal: The queue's own quota.
        borrowing_limit: See `Limits`.
        lending_limit: See `Limits`.
        own: What is charged to the queue itself.
        quota: Nominal and what the children lend.
        used: Own and what the children use beyond what they keep.
    """

    __slots__ = ("borrowing_limit", "entry", "lending_limit", "named", "nominal", "own", "quota", "used")

    def __init__(self, entry: str) -> None:
        self.entry = entry
        self.named = False
        self.nominal = 0
        self.borrowing_limit: int | None = None
        self.lending_limit: int | None = None
        self.own = 0
        self.quota = 0
        self.used = 0

    @property
    def kept(self) -> int:
        """Quota that is not lent."""
        return 0 if self.lending_limit is None else max(0, self.quota - self.lending_limit)

    @property
    def lent(self) -> int:
        """Quota that is in the parent's pool."""
        return self.quota if self.lending_limit is None else min(self.quota, self.lending_limit)

    @property
    def overflow(self) -> int:
        """Use that is in the parent's pool."""
        return max(0, self.used - self.kept)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known of it."""
        return not (self.named or self.own or self.quota or self.used)


_NOTHING = Line("")


class Structure:
    """Which lines there are in a tree, and what flows into what.

    Attributes:
        version: Grows with every change of that, and not with amounts.
    """

    __slots__ = ("version",)

    def __init__(self) -> None:
        self.version = 0


Links = list[tuple["QueueNode", Line]]
"""A queue's line of one resource, its parent's, and so on to the top of that resource."""


class QueueNode:
    """A queue and its place. It also stands for a queue that does not exist, and is named or charged all the same.

    Attributes:
        name: The queue's name.
        spec: What it is granted; None while there is no such queue.
        above: The node of the parent that it names.
        up: The node that its lines flow into: `above`, unless the parents go in a circle.
        below: The nodes that name it as their parent.
        in_circle: Whether it is its own ancestor.
        charged: Amounts charged to it, by resource as the caller named it.
        lines: Lines by the name of the entry.
        from_below: What the children's lines send, by their name: quota lent, and overflow.
        structure: Of the tree that it is part of.
        chains: What `chain` found, by resource, as of a version of the structure.
        capacities: What `capacity` says of that, likewise: what is lent depends on specifications alone.
    """

    __slots__ = (
        "_denied",
        "_families",
        "_routes",
        "above",
        "below",
        "capacities",
        "chains",
        "charged",
        "from_below",
        "in_circle",
        "lines",
        "name",
        "spec",
        "structure",
        "up",
    )

    def __init__(self, name: str, structure: Structure) -> None:
        self.name = name
        self.structure = structure
        self.chains: dict[str, tuple[int, Links]] = {}
        self.capacities: dict[str, tuple[int, int]] = {}
        self.spec: QueueSpec | None = None
        self.above: QueueNode | None = None
        self.up: QueueNode | None = None
        self.below: dict[str, QueueNode] = {}
        self.in_circle = False
        self.charged: dict[str, int] = {}
        self.lines: dict[str, Line] = {}
        self.from_below: dict[str, tuple[int, int]] = {}
        self._routes: dict[str, str] = {}
        self._families: frozenset[str] = frozenset()
        self._denied: dict[str, bool] = {}

    @property
    def parent(self) -> QueueNode | None:
        """The queue it borrows from: it must exist."""
        return self.up if self.up is not None and self.up.spec is not None else None

    def top(self) -> str:
        """The name of the highest node that its lines flow into."""
        here = self
        while here.up is not None:
            here = here.up
        return here.name

    def children(self) -> list[QueueNode]:
        """The queues that borrow from it, by name."""
        return [self.below[name] for name in sorted(self.below) if self.below[name].up is self]

    def route(self, resource: str) -> str:
        """The entry under which the queue accounts a resource."""
        entry = self._routes.get(resource)
        if entry is None:
            limits = {} if self.spec is None else self.spec.limits
            entry, of = resource, family(resource)
            if of and resource not in limits and any_member(of) in limits:
                entry = any_member(of)
            self._routes[resource] = entry
        return entry

    def denies(self, resource: str) -> bool:
        """Whether the queue names other members of the family, and neither this one nor Any."""
        denied = self._denied.get(resource)
        if denied is None:
            named = self.spec is not None and family(resource) in self._families
            limits = {} if self.spec is None else self.spec.limits
            denied = self._denied[resource] = named and self.route(resource) not in limits
        return denied

    def respecify(self, spec: QueueSpec | None) -> None:
        """Take in a specification and reckon every line anew. Its parent must not see its lines meanwhile."""
        self.spec = spec
        self.structure.version += 1
        self._routes, self._denied = {}, {}
        self.lines = {}
        limits = {} if spec is None else spec.limits
        self._families = frozenset(family(resource) for resource in limits) - {""}
        for resource, limit in limits.items():
            line = self.lines[resource] = Line(resource)
            line.named = True
            line.nominal = line.quota = limit.nominal
            line.borrowing_limit, line.lending_limit = limit.borrowing_limit, limit.lending_limit
        for resource, amount in self.charged.items():
            line = self.line(self.route(resource))
            line.own += amount
            line.used += amount
        for resource, (lent, overflow) in self.from_below.items():
            line = self.line(self.route(resource))
            line.quota += lent
            line.used += overflow

    def line(self, entry: str) -> Line:
        """The line of an entry, made if there is none."""
        found = self.lines.get(entry)
        if found is None:
            found = self.lines[entry] = Line(entry)
            self.structure.version += 1
        return found

    def charge(self, resource: str, amount: int) -> None:
        """Charge an amount to the queue itself (negative: take it back), and tell everyone above."""
        left = self.charged.get(resource, 0) + amount
        if left:
            self.charged[resource] = left
        else:
            self.charged.pop(resource, None)
        entry = self.route(resource)
        line = self.line(entry)
        overflow = line.overflow
        line.own += amount
        line.used += amount
        overflow = line.overflow - overflow
        if line.is_empty:
            del self.lines[entry]
            self.structure.version += 1
        if self.up is not None:
            self.up.receive(entry, 0, overflow)

    def receive(self, resource: str, lent: int, overflow: int) -> None:
        """Account a change of what a child lends and overflows, and tell everyone above."""
        node: QueueNode | None = self
        while node is not None and (lent or overflow):
            lent_before, overflow_before = node.from_below.get(resource, (0, 0))
            total = (lent_before + lent, overflow_before + overflow)
            if total == (0, 0):
                node.from_below.pop(resource, None)
            else:
                node.from_below[resource] = total
            resource = node.route(resource)
            line = node.line(resource)
            before = line.lent, line.overflow
            line.quota += lent
            line.used += overflow
            lent, overflow = line.lent - before[0], line.overflow - before[1]
            if line.is_empty:
                del node.lines[resource]
                node.structure.version += 1
            node = node.up

    def send(self, sign: int) -> None:
        """Show its lines to the node above (1), or take them out of its sight (-1)."""
        if self.up is not None:
            for entry, line in self.lines.items():
                self.up.receive(entry, sign * line.lent, sign * line.overflow)


def chain(node: QueueNode, resource: str) -> Links:
    """The lines a request passes, from the queue to the top of that resource; empty where nothing limits it.

    The top of a granted resource is the root. That of a budget is the highest queue that names it: those above have
    no part in it. Whoever gets it must not change it.
    """
    known = node.chains.get(resource)
    if known is not None and known[0] == node.structure.version:
        return known[1]
    links = _chain(node, resource)
    node.chains[resource] = node.structure.version, links
    return links


def _chain(node: QueueNode, resource: str) -> Links:
    links: Links = []
    here: QueueNode | None = node
    while here is not None:
        resource = here.route(resource)
        links.append((here, here.lines.get(resource, _NOTHING)))
        up = here.up
        here = up if up is not None and up.spec is not None else None
    if ":" not in resource:
        while links and not links[-1][1].named:
            links.pop()
    return links


def first_refusal(links: Links, asked: int) -> int | None:
    """Which link refuses an amount: the nearest to the queue; None when all take it.

    What a queue keeps serves it whatever happens above; only the rest goes up.
    """
    if not links:
        return None
    top = len(links) - 1
    for i in range(top):
        line = links[i][1]
        used, quota = line.used, line.quota
        free = 0
        if line.lending_limit is not None:
            free = max(0, quota - line.lending_limit) - used
            if free >= asked:
                return None
        if line.borrowing_limit is not None and used + asked > quota + line.borrowing_limit:
            return i
        if free > 0:
            asked -= free
    line = links[top][1]
    return top if line.used + asked > line.quota else None


def room(links: Links) -> int:
    """The largest amount that fits now. Negative where a limit was lowered below use; `links` must not be empty."""
    line = links[-1][1]
    left = line.quota - line.used
    for _, line in reversed(links[:-1]):
        free = max(0, line.kept - line.used)
        left += free
        if line.borrowing_limit is not None:
            left = min(left, line.quota + line.borrowing_limit - line.used)
        if free:
            left = max(left, free)
    return left


def capacity_of(node: QueueNode, resource: str) -> int:
    """`capacity` of the lines of a queue, which must not be empty."""
    known = node.capacities.get(resource)
    if known is None or known[0] != node.structure.version:
        known = node.structure.version, capacity(chain(node, resource))
        node.capacities[resource] = known
    return known[1]


def capacity(links: Links) -> int:
    """The largest amount that would fit if nothing at all was used; `links` must not be empty."""
    most = links[-1][1].quota
    for _, line in reversed(links[:-1]):
        most += line.kept
        if line.borrowing_limit is not None:
            most = min(most, line.quota + line.borrowing_limit)
    return most
