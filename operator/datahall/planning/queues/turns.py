"""A tournament down the quota tree: at each level the child with the smallest key, among those with waiting work.

It lasts for one pass of decisions at one point in time. A heap per queue is made when the search first comes by, and an
entry whose key has changed since is found out when it comes up: a turn costs the depth times the logarithm of the
children.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush

from datahall.planning.queues.tree import QueueTree

Key = tuple[float, float, int, str]
"""What decides between neighbours; the smaller goes first, and the name makes the order total."""

_Place = tuple[str, bool]
"""A contender: a queue with everything beneath it, or (True) a queue's own waiting work among that of its children."""

_TOP: _Place = ("", False)


class Turns:
    """Queues with waiting work, and whose turn it is among them."""

    def __init__(
        self,
        tree: QueueTree,
        waiting: Iterable[str],
        *,
        key: Callable[[str], Key],
        own_key: Callable[[str], Key],
        admit: Callable[[str, float, float], None],
    ) -> None:
        """Begin with the queues that have waiting work.

        Args:
            tree: The queues; it must not change while this lives.
            waiting: Queues with waiting work; those that do not exist are left out.
            key: Where a queue stands now, with everything beneath it.
            own_key: Where a queue itself stands now, among those beneath it.
            admit: Told of each admission (queue, GPUs, watts), before keys are asked for again.
        """
        self._tree = tree
        self._key = key
        self._own_key = own_key
        self._admit = admit
        self._contenders: dict[_Place, set[_Place]] = {}
        self._heaps: dict[_Place, list[tuple[Key, _Place]]] = {}
        self._keys: dict[_Place, Key] = {}
        self._waiting = {name for name in waiting if tree.spec(name) is not None}
        for name in self._waiting:
            here: _Place = (name, True)
            above: str | None = name
            while True:
                over = _TOP if above is None else (above, False)
                beside = self._contenders.setdefault(over, set())
                known = bool(beside)
                beside.add(here)
                if known or above is None:
                    # Those above know of `over` already.
                    break
                here, above = over, tree.parent(above)

    def next_queue(self) -> str | None:
        """The queue whose turn it is; the same again until it is done or something is admitted. None at the end."""
        if not self._waiting:
            return None
        here = _TOP
        while not here[1]:
            here = self._first_of(here)
        return here[0]

    def admitted(self, queue: str, *, gpus: float, watts: float = 0.0) -> None:
        """A gang of a queue starts: it is charged in advance, and the queue and those above it may fall behind."""
        self._admit(queue, gpus, watts)
        for place, over in self._path(queue):
            if place in self._keys:
                self._enter(place, self._heaps[over])

    def done(self, queue: str) -> None:
        """A queue has nothing waiting any more that could start in this pass."""
        if queue not in self._waiting:
            return
        self._waiting.remove(queue)
        for place, over in self._path(queue):
            beside = self._contenders[over]
            beside.remove(place)
            self._keys.pop(place, None)
            if beside:
                break

    def _path(self, queue: str) -> Iterable[tuple[_Place, _Place]]:
        """The contenders that a queue is part of, each with the one it is beneath, from the queue upward."""
        here: _Place = (queue, True)
        above: str | None = queue
        while above is not None:
            over: _Place = (above, False)
            yield here, over
            here, above = over, self._tree.parent(above)
        yield here, _TOP

    def _first_of(self, over: _Place) -> _Place:
        heap = self._heaps.get(over)
        if heap is None:
            heap = self._heaps[over] = []
            for place in self._contenders[over]:
                self._keys[place] = self._key_of(place)
                heap.append((self._keys[place], place))
            heapify(heap)
        while self._keys.get(heap[0][1]) != heap[0][0]:
            heappop(heap)
        return heap[0][1]

    def _enter(self, place: _Place, heap: list[tuple[Key, _Place]]) -> None:
        key = self._key_of(place)
        if key != self._keys[place]:
            self._keys[place] = key
            heappush(heap, (key, place))

    def _key_of(self, place: _Place) -> Key:
        name, itself = place
        return self._own_key(name) if itself else self._key(name)
