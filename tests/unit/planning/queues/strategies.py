"""Queues made by hypothesis: few names, so that they meet; every kind of limit; missing and circular parents."""

from hypothesis import strategies as st

from datahall.planning.queues.spec import Limits, QueueSpec

NAMES = ["a", "b", "c", "d", "e", "f"]
MODELS = ["gpu:H100", "gpu:A100"]
RESOURCES = [*MODELS, "watts", "joules_per_day"]

limits = st.builds(
    Limits,
    nominal=st.integers(0, 8),
    borrowing_limit=st.sampled_from([None, None, 0, 3]),
    lending_limit=st.sampled_from([None, None, 0, 2]),
)
entries = st.dictionaries(st.sampled_from([*RESOURCES, "gpu:Any"]), limits, max_size=3)


def specs(names=NAMES, parents=(*NAMES, "", "nobody")):
    return st.builds(
        QueueSpec,
        name=st.sampled_from(names),
        parent=st.sampled_from(parents),
        weight=st.sampled_from([0.5, 1.0, 2.0]),
        limits=entries,
    )


@st.composite
def sound_trees(draw):
    """Queues in a tree without trouble: each names one before it, or none."""
    made = []
    for i, name in enumerate(NAMES[: draw(st.integers(2, len(NAMES)))]):
        made.append(draw(specs([name], [*NAMES[:i], *NAMES[:i], ""])))
    return made
