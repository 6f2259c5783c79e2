"""Each error that a GPU would make silently is reported: what, where in memory, and on which line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kernel_execution import Finding, InOut, Input, Kind, Library, Order, Output, Scratch

SOURCE = (Path(__file__).parent / "kernels" / "wrong.cu").read_text().splitlines()
ORDERS = [(Order.FORWARD, 0), (Order.REVERSE, 0), (Order.SHUFFLED, 1), (Order.SHUFFLED, 2)]


def line_of(name: str, word: str) -> str:
    (line,) = (number for number, text in enumerate(SOURCE, 1) if text.endswith(f"// {word}: {name}"))
    return f"wrong.cu:{line}"


def run(library: Library, name: str, **options) -> tuple[Finding, ...]:
    x, y = np.ones(100, np.float32), np.empty(100, np.float32)
    outcome = library.run(f"launch_{name}", Input("x", x), Output("y", y, is_complete=False), **options)
    assert outcome.code == (719 if outcome.findings else 0)
    return outcome.findings


# name, kind, what else the text says, whether a second line is named
CASES = [
    ("missing_barrier", Kind.RACE, "of 4 bytes at tile + ", True),
    ("barrier_only_before", Kind.RACE, "of 4 bytes at tile + ", True),
    (
        "beyond_shared_memory",
        Kind.OUT_OF_BOUNDS,
        "write of 4 bytes at tile + 128 (tile has 128 bytes)",
        False,
    ),
    ("index_beyond_its_row", Kind.INDEX, "of 'float [16]'", False),
    ("divergent_barrier", Kind.BARRIER, "48 of 64 threads wait at the barrier", False),
    ("barrier_of_one_branch", Kind.BARRIER, "others wait at the one at", True),
    ("barrier_within_a_warp", Kind.DEADLOCK, "__shfl_xor_sync with mask 0xffffffff", True),
    ("shuffle_after_lanes_ended", Kind.MASK, "ended", False),
    ("shuffle_from_outside_the_mask", Kind.SHUFFLE, "reads lane 16, which is not in the mask 0xffff", False),
    ("not_in_its_own_mask", Kind.MASK, "by lane 15, which is not in it", False),
    ("race_within_a_warp", Kind.RACE, "of 4 bytes at tile + ", True),
    ("shuffle_as_barrier", Kind.RACE, "of 4 bytes at tile + ", True),
    ("uninitialised_shared_memory", Kind.UNINITIALISED, "read of 4 bytes at tile + 20", False),
    ("uninitialised_output", Kind.UNINITIALISED, "read of 4 bytes at y + ", False),
    ("misaligned_vector", Kind.MISALIGNED, "no multiple of 16 (it is 4 beyond one)", False),
    ("write_to_an_input", Kind.READ_ONLY, "write of 4 bytes at x + ", False),
    ("blocks_write_the_same", Kind.RACE, "write of 4 bytes at y + ", False),
    ("block_reads_what_another_wrote", Kind.RACE, "of 4 bytes at y + ", True),
    ("no_fence", Kind.RACE, "of 4 bytes at y + ", True),
    ("plain_beside_atomic", Kind.RACE, "of 4 bytes at y + 0", True),
    ("copy_beyond_the_end", Kind.OUT_OF_BOUNDS, "of 404 bytes at x + 0 (x has 400 bytes)", False),
    ("overflowing_index", Kind.OVERFLOW, "a product of type 'int'", False),
]


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: f"{order[0].name.lower()}-{order[1]}")
@pytest.mark.parametrize(("name", "kind", "text", "has_other"), CASES, ids=[case[0] for case in CASES])
def test_error_is_reported_with_its_place(
    wrong: Library, name: str, kind: Kind, text: str, has_other: bool, order: tuple[Order, int]
) -> None:
    findings = [f for f in run(wrong, name, order=order[0], seed=order[1]) if f.kind is kind]
    assert findings, name
    said = "\n".join(str(finding) for finding in findings)
    assert text in said
    assert line_of(name, "here") in said
    assert not has_other or line_of(name, "there") in said
    assert all(finding.kernel.startswith(name) for finding in findings)


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: f"{order[0].name.lower()}-{order[1]}")
def test_finding_reads_as_a_sentence(wrong: Library, order: tuple[Order, int]) -> None:
    (finding,) = run(wrong, "beyond_the_end", order=order[0], seed=order[1])
    here = line_of("beyond_the_end", "here")
    assert finding.count == 28
    if order[0] is Order.FORWARD:
        assert str(finding) == (
            "out of bounds: beyond_the_end, block (1, 0, 0), thread (36, 0, 0): "
            f"write of 4 bytes at y + 400 (y has 400 bytes), at {here} [28 times]"
        )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("before_the_start", "read of 4 bytes at x - 4 (x has 400 bytes), at {here}"),
        (
            "beyond_dynamic_shared_memory",
            "dynamic shared memory + 252 (dynamic shared memory has 252 bytes), at {here}",
        ),
        (
            "shuffle_of_an_absent_lane",
            "at {here}: lanes 0xfff00000 are not there: the block has fewer threads",
        ),
        ("too_much_shared_memory", "49156 bytes of static shared memory, of which a block has 49152"),
        ("no_blocks", "grid.x = 0, not 1 to 2147483647"),
        ("too_many_threads", "block.x = 1025, not 1 to 1024"),
        ("too_many_threads_together", "threads of a block = 1056, not 1 to 1024"),
        ("too_deep_a_block", "block.z = 65, not 1 to 64"),
        ("too_high_a_grid", "grid.y = 65536, not 1 to 65535"),
        ("too_much_dynamic_shared_memory", "dynamic shared memory = 49153, not 0 to 49152"),
        ("too_much_asked_for", "shared memory that was asked for = 232449, not 0 to 232448"),
        (
            "more_shared_memory_than_asked_for",
            "16384 bytes of static and 32772 of dynamic shared memory, of which a block has 49152 unless it asks",
        ),
    ],
)
def test_limits_of_memory_and_launch(wrong: Library, name: str, text: str) -> None:
    x, y = np.ones(100, np.float32), np.empty(100, np.float32)
    outcome = wrong.run(f"launch_{name}", Input("x", x), Output("y", y, is_complete=False))
    here = line_of(name, "here") if "{here}" in text else ""
    assert any(text.format(here=here) in finding.text for finding in outcome.findings), outcome
    shape_is_wrong = name.startswith(("no_", "too_")) and name != "too_much_shared_memory"
    assert outcome.code == (9 if shape_is_wrong else 719)


def test_null_pointer_ends_the_launch_and_not_the_program(wrong: Library) -> None:
    outcome = wrong.run("launch_null_pointer", None, Output("y", np.empty(100, np.float32)))
    assert outcome.kinds() == {Kind.OUT_OF_BOUNDS}
    assert f"a null pointer, at {line_of('null_pointer', 'here')}" in outcome.findings[0].text


def test_launch_without_an_end_is_ended(wrong: Library) -> None:
    y = np.zeros(1, np.float32)
    outcome = wrong.run("launch_endless", None, InOut("y", y), most_accesses=10_000)
    assert outcome.kinds() == {Kind.ENDLESS}
    assert line_of("endless", "here") in outcome.findings[0].text


def test_loop_that_does_nothing_is_ended(wrong: Library) -> None:
    y = np.zeros(32, np.float32)
    outcome = wrong.run("launch_endless_without_access", None, InOut("y", y), most_idle_milliseconds=50)
    assert outcome.kinds() == {Kind.ENDLESS}
    assert "neither an access nor a barrier for 50 ms" in outcome.findings[0].text
    assert line_of("endless_without_access", "here") in outcome.findings[0].text


def test_bytes_that_no_kernel_wrote_are_told(wrong: Library) -> None:
    x, y = np.ones(100, np.float32), np.empty(200, np.float32)
    outcome = wrong.run("launch_missing_barrier", Input("x", x), Output("y", y))
    assert Kind.UNWRITTEN not in outcome.kinds()  # told of what else went well
    outcome = wrong.run("launch_null_pointer", Input("x", x), Output("y", y))
    assert [str(finding) for finding in outcome.findings] == [
        "unwritten: nobody has written y + 256 (it has 800 bytes)"
    ]


def test_misaligned_buffers_show_what_needs_alignment(wrong: Library) -> None:
    x, y = np.ones(100, np.float32), np.empty(64, np.float32)
    outcome = wrong.run("launch_misaligned_vector", Input("x", x, misaligned_by=12), Output("y", y))
    assert outcome.findings == ()


def test_scratch_is_a_buffer_of_its_own(wrong: Library) -> None:
    outcome = wrong.run(
        "launch_null_pointer", Input("x", np.ones(100, np.float32)), Scratch("workspace", 128)
    )
    assert outcome.findings[0].text.startswith(
        "write of 4 bytes at workspace + 128 (workspace has 128 bytes)"
    )


def test_findings_of_one_call_are_not_told_of_the_next(wrong: Library) -> None:
    assert run(wrong, "missing_barrier")
    assert run(wrong, "null_pointer") == ()
