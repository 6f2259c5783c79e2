"""The newest known state of every object the operator looks at: one dictionary per kind, written through.

Three sources write here and the newest resourceVersion wins: the watch (`feed`), the answers to our own writes
(`executor`), and lists (`resync`). Because our own creates and deletes land here before the next reconcile of that key
runs, a slow watch can never make it create a pod twice: that replaces client-go's "expectations". Deleted objects
leave a tombstone, so that a late event cannot bring one back.

Comparing resourceVersions as numbers within one kind is defined behaviour since Kubernetes 1.35 and was true before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

TOMBSTONES_KEPT = 20_000


class Stored(Protocol):
    """What the store needs to know of an object."""

    @property
    def namespace(self) -> str:
        """Its namespace, "" where the kind has none."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def uid(self) -> str:
        """Its uid."""

    @property
    def version(self) -> int:
        """Its resourceVersion."""


T = TypeVar("T", bound=Stored)
ObjectName = tuple[str, str]  # namespace, name


class Change(NamedTuple, Generic[T]):
    """One change: `old` is None for a new object, `new` is None for one that is gone."""

    old: T | None
    new: T | None


class Table(Generic[T]):
    """All objects of one kind, by (namespace, name), and by one more key if `group_by` is given."""

    def __init__(
        self,
        parse: Callable[[dict[str, Any]], T],
        *,
        group_by: Callable[[T], ObjectName | None] | None = None,
    ) -> None:
        self._parse = parse
        self._group_by = group_by
        self._objects: dict[ObjectName, T] = {}
        self._groups: dict[ObjectName, dict[ObjectName, T]] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._listeners: list[Callable[[Change[T]], None]] = []

    def __len__(self) -> int:
        """How many objects there are."""
        return len(self._objects)

    def __iter__(self) -> Iterator[T]:
        """All objects."""
        return iter(self._objects.values())

    def get(self, namespace: str, name: str) -> T | None:
        """One object, or None."""
        return self._objects.get((namespace, name))

    def group(self, key: ObjectName) -> list[T]:
        """The objects that `group_by` put under `key`."""
        return list(self._groups.get(key, {}).values())

    def listen(self, listener: Callable[[Change[T]], None]) -> None:
        """Call `listener` at every change, on the event loop, in order."""
        self._listeners.append(listener)

    def put(self, raw: dict[str, Any]) -> None:
        """Take in a state of an object; older than what is known, or of a deleted object, it is ignored."""
        metadata = raw["metadata"]
        uid = metadata["uid"]
        if uid in self._gone:
            return
        key = (metadata.get("namespace") or "", metadata["name"])
        old = self._objects.get(key)
        if old is not None and old.uid == uid and int(metadata["resourceVersion"]) <= old.version:
            return
        new = self._parse(raw)
        if old is not None and old.uid != uid:
            if old.version > new.version:
                return  # a late event of an earlier object of this name
            self._forget(key, old)
        self._set(key, old if old is not None and old.uid == uid else None, new)

    def remove(self, namespace: str, name: str, uid: str) -> None:
        """The object of that uid is gone for good."""
        self._bury(uid)
        key = (namespace, name)
        old = self._objects.get(key)
        if old is not None and old.uid == uid:
            self._forget(key, old)

    def replace(self, raws: Iterable[dict[str, Any]], version: int) -> None:
        """Take in a whole list as it was at `version`: what is missing from it and not younger is gone."""
        seen: set[str] = set()
        for raw in raws:
            seen.add(raw["metadata"]["uid"])
            self.put(raw)
        for old in [o for o in self._objects.values() if o.uid not in seen and o.version <= version]:
            self.remove(old.namespace, old.name, old.uid)

    def _bury(self, uid: str) -> None:
        self._gone[uid] = None
        if len(self._gone) > TOMBSTONES_KEPT:
            self._gone.popitem(last=False)

    def _forget(self, key: ObjectName, old: T) -> None:
        del self._objects[key]
        if self._group_by is not None and (group := self._group_by(old)) is not None:
            members = self._groups[group]
            del members[key]
            if not members:
                del self._groups[group]
        self._bury(old.uid)
        self._tell(Change(old, None))

    def _set(self, key: ObjectName, old: T | None, new: T) -> None:
        self._objects[key] = new
        if self._group_by is not None:
            before = self._group_by(old) if old is not None else None
            after = self._group_by(new)
            if before is not None and before != after:
                self._groups[before].pop(key, None)
                if not self._groups[before]:
                    del self._groups[before]
            if after is not None:
                self._groups.setdefault(after, {})[key] = new
        self._tell(Change(old, new))

    def _tell(self, change: Change[T]) -> None:
        for listener in self._listeners:
            listener(change)
