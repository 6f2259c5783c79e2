"""How many watts a GPU can draw at most: its cap where a node's label tells it, else the default limit of its model.

A GPU that nobody has capped draws up to its default power limit, so that is what is reserved for it. The table has the
maximum (thermal design) powers of NVIDIA's data sheets, looked up by the words of the label `nvidia.com/gpu.product`;
where one name is sold at several limits the variant decides, and the unnamed variant is the SXM or largest one: too
much reserved is idle power, too little is a tripped breaker. A model that is not here counts as 0: not known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from datahall.control import labels

_DEFAULT_WATTS: tuple[tuple[frozenset[str], int], ...] = tuple(
    (frozenset(words.split()), watts)
    for words, watts in (
        # The first line whose words are all in the product name counts.
        ("GB200", 1200),
        ("B200", 1000),
        ("H200 NVL", 600),
        ("H200", 700),
        ("H100 NVL", 400),
        ("H100 PCIE", 350),
        ("H100", 700),
        ("A100 PCIE 40GB", 250),
        ("A100 PCIE", 300),
        ("A100", 400),
        ("L40S", 350),
        ("L40", 300),
        ("L4", 72),
        ("A40", 300),
        ("A30", 165),
        ("A10", 150),
        ("V100 PCIE", 250),
        ("V100", 300),
        ("T4", 70),
    )
)

_MOST_WATTS = 100_000
"""More than any GPU draws: a label beyond it is a slip."""


def cap_watts(node_labels: Mapping[str, str], gpu_model: str) -> int:
    """The power cap of each GPU of a node, in watts; 0 where it is not known.

    Args:
        node_labels: the node's labels. A cap that is no positive integer is passed over.
        gpu_model: the model of its GPUs, "" for none.
    """
    if not gpu_model:
        return 0
    told = node_labels.get(labels.GPU_CAP_WATTS, "")
    if told.isdecimal() and 0 < int(told) <= _MOST_WATTS:
        return int(told)
    words = frozenset(re.split(r"[^A-Z0-9]+", gpu_model.upper()))
    return next((watts for needed, watts in _DEFAULT_WATTS if needed <= words), 0)
