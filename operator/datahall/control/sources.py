"""What is watched, and where it goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from datahall.control import metrics
from datahall.control.store import Table
from datahall.kube import KubeClient, Resource

PAGE = 2000


@dataclass(frozen=True, slots=True)
class Source:
    """One kind to be watched.

    Attributes:
        resource: the kind.
        table: where its objects go.
        label_selector: only objects with these labels; "" for all.
    """

    resource: Resource
    table: Table[Any]
    label_selector: str = ""

    async def fill(self, client: KubeClient) -> str:
        """List the kind into its table; the version of the list.

        Raises:
            KubeError: it cannot be listed (not installed, not allowed, or the API server is away).
        """
        listed = await client.list(self.resource, limit=PAGE, label_selector=self.label_selector)
        version = str(listed["metadata"]["resourceVersion"])
        self.table.replace(listed["items"], int(version))
        metrics.OBJECTS.labels(self.resource.plural).set(len(self.table))
        return version
