"""Small halls and mixes of pods for the packing rules."""

from __future__ import annotations

from hypothesis import strategies as st

from datahall.planning.packing.demand import PodClass
from datahall.planning.packing.states import NodeKind

T4 = NodeKind("T4", 2, 96_000, 400_000)
H100 = NodeKind("H100", 4, 64_000, 300_000)
CPU_ONLY = NodeKind("", 0, 32_000, 100_000)
KINDS = (T4, H100, CPU_ONLY)

whole = st.builds(
    PodClass,
    cpu_milli=st.sampled_from([0, 4_000, 16_000, 40_000]),
    memory_mib=st.sampled_from([0, 10_000, 120_000]),
    gpus=st.sampled_from([0, 1, 2, 4]),
    gpu_milli=st.just(1000),
    models=st.sampled_from([frozenset(), frozenset({"T4"}), frozenset({"T4", "H100"})]),
)
shared = st.builds(
    PodClass,
    cpu_milli=st.sampled_from([1_000, 8_000, 20_000]),
    memory_mib=st.sampled_from([0, 10_000]),
    gpus=st.just(1),
    gpu_milli=st.sampled_from([50, 160, 190, 330, 500, 810, 990]),
    models=st.sampled_from([frozenset(), frozenset({"H100"})]),
)
pods = st.one_of(whole, shared).map(
    lambda pod: pod if pod.gpus else PodClass(pod.cpu_milli, pod.memory_mib, 0, 0)
)
