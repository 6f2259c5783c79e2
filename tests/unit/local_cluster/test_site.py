"""Whose the machine's kubelet folder is."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_cluster import cluster, machine
from local_cluster.errors import ClusterError
from local_cluster.site import Site


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("DATAHALL_CACHE", str(tmp_path / "mine"))
    made = Site()
    made.kubelet_mark = tmp_path / "mark"
    return made


@pytest.fixture
def theirs(site: Site, tmp_path: Path) -> Path:
    """The state of a cluster under another cache, which has this machine."""
    state = tmp_path / "theirs" / "cluster"
    state.mkdir(parents=True)
    site.kubelet_mark.write_text(f"{state}\n")
    return state


def test_a_mark_of_ones_own_of_an_older_one_or_of_a_cluster_that_is_gone_is_nobody_elses(
    site: Site, tmp_path: Path
) -> None:
    assert site.other_state is None
    for text in ("", f"{site.state}\n", f"{tmp_path / 'gone' / 'cluster'}\n"):
        site.kubelet_mark.write_text(text)
        assert site.other_state is None


def test_who_waits_for_another_cluster_goes_on_when_it_has_ended(
    site: Site, theirs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        if clock[0] >= 60.0:
            theirs.rmdir()

    monkeypatch.setattr(machine.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(machine.time, "sleep", sleep)
    machine.wait_for_other(site, 0.0)
    assert clock == [0.0]
    machine.wait_for_other(site, 30.0)
    assert clock == [30.0]
    assert site.other_state is not None
    machine.wait_for_other(site, 600.0)
    assert clock == [60.0]
    assert site.other_state is None


def test_down_touches_nothing_of_a_cluster_under_another_cache_and_says_how_to_end_it(
    site: Site, theirs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "Site", lambda: site)
    monkeypatch.setattr(cluster, "_clear", lambda _: pytest.fail("touched"))
    with pytest.raises(ClusterError, match=f"DATAHALL_CACHE={theirs.parent}"):
        cluster.down()
