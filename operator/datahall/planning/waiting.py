"""The line of waiting gangs: per queue, by priority, then age, then key; like gangs are kept together.

Gangs of one queue, namespace, priority and shape are a *kind*: what is said of the first of them is true of all, so
that thousands of like jobs cost one examination, and only what changes is ever told.

Kinds of one queue that ask for the same of its quota are a *group*: where quota refuses the first of them, it refuses
those behind it. So the line of a queue may be as long as it likes: a pass looks at its beginning (`scanning`).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from datahall.planning.shape import Shape
from datahall.planning.types import GangRequest

SortKey = tuple[int, float, str]
"""Where a gang stands in its queue: smaller goes first."""


def sort_key(gang: GangRequest) -> SortKey:
    """Where a gang stands in its queue."""
    return -gang.priority, gang.created_seconds, gang.key


class KindKey(NamedTuple):
    """What gangs of one kind have in common."""

    queue: str
    namespace: str
    priority: int
    run_seconds: float | None
    preemptible: bool
    shape: Shape

    @classmethod
    def of(cls, gang: GangRequest) -> KindKey:
        """The kind of a gang."""
        return cls(
            gang.queue, gang.namespace, gang.priority, gang.run_seconds, gang.preemptible, Shape.of(gang)
        )


@dataclass(slots=True, eq=False)
class Kind:
    """Like gangs that wait.

    Attributes:
        key: What they have in common.
        line: Their places, in order.
        untold: Keys of gangs that were not told yet why they wait.
        told: The sort of reason that was told last; "" for none.
        group: The group that it is part of; None until the next pass.
    """

    key: KindKey
    line: list[SortKey] = field(default_factory=list)
    untold: set[str] = field(default_factory=set)
    told: str = ""
    group: Group | None = None


class GroupKey(NamedTuple):
    """What kinds of one group have in common, beside their queue."""

    namespace: str
    least: int
    workers: int
    gpus: int
    gpu_milli: int
    models: tuple[str, ...]
    traits: Hashable


@dataclass(slots=True, eq=False)
class Group:
    """Kinds of one queue that quota refuses alike.

    Attributes:
        key: What they have in common.
        order: The place of the first gang of each kind, in order.
        odd: Kinds that may have to be told something.
        told: The sort of reason that all others were told last; "" for none.
    """

    key: GroupKey
    order: list[SortKey] = field(default_factory=list)
    odd: dict[Kind, None] = field(default_factory=dict)
    told: str = ""


@dataclass(slots=True, eq=False)
class _Queue:
    """What waits in one queue: kinds, groups, and the places of all gangs in order."""

    kinds: dict[KindKey, Kind] = field(default_factory=dict)
    groups: dict[GroupKey, Group] = field(default_factory=dict)
    order: list[SortKey] = field(default_factory=list)


class WaitingLine:
    """Gangs that wait, kept in order as they come and go."""

    def __init__(self) -> None:
        self._gangs: dict[str, tuple[GangRequest, Kind]] = {}
        self._queues: dict[str, _Queue] = {}
        self._fresh: list[Kind] = []
        self._shapes: dict[Shape, dict[Kind, None]] = {}
        self._traits: dict[Shape, Hashable] = {}
        self._traits_version: Hashable = None

    # ---- changes

    def add(self, gang: GangRequest) -> bool:
        """Put a gang in line, or change it there; return whether anything changed."""
        before = self._gangs.get(gang.key)
        if before is not None:
            if before[0] == gang:
                return False
            self.remove(gang.key)
        key, place = KindKey.of(gang), sort_key(gang)
        queue = self._queues.setdefault(gang.queue, _Queue())
        kind = queue.kinds.get(key)
        if kind is None:
            kind = queue.kinds[key] = Kind(key)
            self._shapes.setdefault(key.shape, {})[kind] = None
            self._fresh.append(kind)
        first = kind.line[0] if kind.line else None
        insort(kind.line, place)
        insort(queue.order, place)
        kind.untold.add(gang.key)
        if kind.group is not None:
            kind.group.odd[kind] = None
            _moved(kind.group, kind, first)
        self._gangs[gang.key] = (gang, kind)
        return True

    def remove(self, key: str) -> GangRequest | None:
        """Take a gang out of the line; return it if it was there."""
        found = self._gangs.pop(key, None)
        if found is None:
            return None
        gang, kind = found
        place, queue = sort_key(gang), self._queues[gang.queue]
        first = kind.line[0]
        del kind.line[bisect_left(kind.line, place)]
        del queue.order[bisect_left(queue.order, place)]
        kind.untold.discard(key)
        if kind.group is not None:
            _moved(kind.group, kind, first)
        if not kind.line:
            self._forget(queue, kind)
        if not queue.order:
            del self._queues[gang.queue]
        return gang

    def group_up(self, traits: Callable[[Shape], Hashable], version: Hashable) -> None:
        """Put every kind into its group; to be called before groups are asked for.

        Args:
            traits: What decides beside quota whether a shape is refused like others: equal for those that are.
            version: Changes whenever `traits` may say something else.
        """
        if self._traits_version != version:
            self._traits_version = version
            before, self._traits = self._traits, {shape: traits(shape) for shape in self._shapes}
            changed = [shape for shape, now in self._traits.items() if before.get(shape, now) != now]
            for kind in [kind for shape in changed for kind in self._shapes[shape]]:
                if kind.group is not None:
                    self._leave_group(self._queues[kind.key.queue], kind)
                    self._fresh.append(kind)
        for kind in self._fresh:
            if kind.line and kind.group is None:
                shape = kind.key.shape
                if shape not in self._traits:
                    self._traits[shape] = traits(shape)
                self._join_group(kind, self._traits[shape])
        self._fresh = []

    # ---- views

    def get(self, key: str) -> GangRequest | None:
        """A waiting gang by key."""
        found = self._gangs.get(key)
        return None if found is None else found[0]

    def kind(self, key: str) -> Kind | None:
        """The kind of a waiting gang."""
        found = self._gangs.get(key)
        return None if found is None else found[1]

    def at(self, place: SortKey) -> tuple[GangRequest, Kind]:
        """The gang at a place in line, and its kind."""
        return self._gangs[place[2]]

    def kinds(self, queue: str) -> Iterator[Kind]:
        """The kinds of gangs that wait in a queue."""
        return iter(self._queues[queue].kinds.values()) if queue in self._queues else iter(())

    def kind_of(self, key: KindKey) -> Kind | None:
        """The gangs of a kind, if any wait."""
        queue = self._queues.get(key.queue)
        return None if queue is None else queue.kinds.get(key)

    def groups(self, queue: str) -> list[Group]:
        """The groups of kinds that wait in a queue, as `group_up` has put them together."""
        return list(self._queues[queue].groups.values()) if queue in self._queues else []

    def queues(self) -> list[str]:
        """Queues with waiting gangs, by name."""
        return sorted(self._queues)

    def count(self, queue: str) -> int:
        """How many gangs of a queue wait."""
        found = self._queues.get(queue)
        return 0 if found is None else len(found.order)

    def position(self, key: str) -> int:
        """Place of a waiting gang among those of its queue; 1 is next."""
        gang = self._gangs[key][0]
        return 1 + bisect_left(self._queues[gang.queue].order, sort_key(gang))

    def __len__(self) -> int:
        return len(self._gangs)

    def __iter__(self) -> Iterator[GangRequest]:
        """All waiting gangs, in no particular order."""
        return (gang for gang, _ in self._gangs.values())

    # ---- inside

    def _forget(self, queue: _Queue, kind: Kind) -> None:
        """Nobody of a kind waits any more."""
        shape = kind.key.shape
        del queue.kinds[kind.key]
        of_shape = self._shapes[shape]
        del of_shape[kind]
        if not of_shape:
            del self._shapes[shape]
            self._traits.pop(shape, None)
        if kind.group is not None:
            self._leave_group(queue, kind)

    def _join_group(self, kind: Kind, traits: Hashable) -> None:
        of, shape = kind.key, kind.key.shape
        key = GroupKey(
            of.namespace, shape.least, shape.workers, shape.gpus, shape.gpu_milli, shape.models, traits
        )
        groups = self._queues[of.queue].groups
        group = groups.get(key)
        if group is None:
            group = groups[key] = Group(key)
        kind.group = group
        group.odd[kind] = None
        insort(group.order, kind.line[0])

    def _leave_group(self, queue: _Queue, kind: Kind) -> None:
        group = kind.group
        assert group is not None, "only a kind in a group leaves one"
        kind.group = None
        group.odd.pop(kind, None)
        if kind.line:
            del group.order[bisect_left(group.order, kind.line[0])]
        if not group.order:
            del queue.groups[group.key]


def _moved(group: Group, kind: Kind, first: SortKey | None) -> None:
    """Another gang is the first of a kind by now, or nobody."""
    now = kind.line[0] if kind.line else None
    if now == first:
        return
    if first is not None:
        del group.order[bisect_left(group.order, first)]
    if now is not None:
        insort(group.order, now)
