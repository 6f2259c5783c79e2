"""What the hall could ever hold: true for as long as its nodes and the pods of others do not change.

The answers are kept from pass to pass, so that thousands that wait cost a look, and not a search.
"""

from __future__ import annotations

from collections.abc import Sequence

from datahall.planning.books import Books
from datahall.planning.fitting import eligible, has_model, lasting, slots
from datahall.planning.placing import holds
from datahall.planning.queues.spec import WATTS
from datahall.planning.shape import Shape
from datahall.planning.state import BoolArray


class Attainable:
    """Which nodes and GPU models a shape may use, and whether it would ever fit."""

    def __init__(self, books: Books) -> None:
        """Know nothing.

        Args:
            books: The planner's memory.
        """
        self._books = books
        self._hall = books.hall
        self._watts_matter = False
        self._models: list[str] = []
        self._possible: dict[Shape, list[str]] = {}
        self._ever: dict[tuple[Shape, str], bool] = {}
        self._lasting: dict[tuple[Shape, str, bool], bool] = {}
        self._columns: dict[tuple[frozenset[str], str, bool], BoolArray] = {}
        self.version: tuple[int, int, bool] = (-1, -1, False)
        """Changes when an answer may have."""

    def renew(self) -> None:
        """Forget what may be true no longer; to be called before others are asked."""
        nodes = self._hall.nodes
        self._watts_matter = any(queue.watts is not None for queue in self._books.queues.values())
        version = (nodes.version, nodes.pods_version, self._watts_matter)
        if self.version != version:
            self.version = version
            self._models = nodes.models()
            self._possible, self._ever, self._lasting, self._columns = {}, {}, {}, {}

    def models(self, shape: Shape) -> list[str]:
        """The models that it may run on, of which the empty hall has enough; "" without GPUs."""
        found = self._possible.get(shape)
        if found is None:
            found = [model for model in self._allowed(shape) if self._fits_ever(shape, model)]
            self._possible[shape] = found
        return found

    def columns(self, shape: Shape, model: str, queue: str) -> BoolArray:
        """Columns where workers may go, [column]; where watts are limited, only nodes whose caps are known."""
        return self._columns_of(shape, model, self._is_metered(shape, queue))

    def fits_lasting(self, shape: Shape, model: str, queue: str) -> bool:
        """Whether the gang would fit once every held gang has ended, with nothing else changed."""
        return self._fits_lasting(shape, model, self._is_metered(shape, queue))

    def traits(self, shape: Shape) -> tuple[tuple[str, bool], ...]:
        """The models on which a shape fits ever, and whether it does once every held gang has ended.

        Twice, if that may depend on whether the queue's watts are limited.
        """
        return tuple(
            (model, self._fits_lasting(shape, model, metered))
            for metered in ((False, True) if self._watts_matter else (False,))
            for model in self.models(shape)
        )

    def _allowed(self, shape: Shape) -> Sequence[str]:
        if shape.gpus == 0:
            return ("",)
        if shape.models:
            return [model for model in dict.fromkeys(shape.models) if model in self._models]
        return self._models

    def _is_metered(self, shape: Shape, queue: str) -> bool:
        """Whether only nodes whose caps are known will do: the watts of its queue are limited."""
        return shape.gpus > 0 and self._watts_matter and self._books.tree.room(queue, WATTS) is not None

    def _columns_of(self, shape: Shape, model: str, metered: bool) -> BoolArray:
        key = (shape.avoid, model if shape.gpus else "", metered)
        found = self._columns.get(key)
        nodes = self._hall.nodes
        if found is None or len(found) != nodes.columns:
            found = eligible(nodes, shape, model)
            if metered:
                found &= nodes.gpu_watts > 0
            self._columns[key] = found
        return found

    def _fits_ever(self, shape: Shape, model: str) -> bool:
        """Whether the gang would fit if nothing at all ran, and every node were in service."""
        key = (shape, model)
        if key not in self._ever:
            nodes = self._hall.nodes
            fits = slots(nodes.total, shape, has_model(nodes, shape, model))
            self._ever[key] = holds(self._hall.topology, fits, shape.demand())
        return self._ever[key]

    def _fits_lasting(self, shape: Shape, model: str, metered: bool) -> bool:
        key = (shape, model, metered)
        if key not in self._lasting:
            nodes = self._hall.nodes
            fits = slots(lasting(nodes), shape, self._columns_of(shape, model, metered))
            self._lasting[key] = holds(self._hall.topology, fits, shape.demand())
        return self._lasting[key]
