"""The packing benchmark: its protocol, its own books, and what it says when it cannot run."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import openb, packing, published
from bench.replay import POLICIES, Books, run
from datahall.planning.packing.demand import PodClass
from datahall.planning.packing.packer import Place
from datahall.planning.packing.states import NodeKind

T4 = NodeKind("T4", 2, 10_000, 1_000)
POD = PodClass(4_000, 100, 1, 600)
WHOLE = PodClass(1_000, 100, 2, 1000)


@pytest.fixture
def trace(tmp_path, monkeypatch):
    """A folder with a small trace in the published form: 6 GPUs, 40 pods, named `tiny`."""
    (tmp_path / "openb_node_list_gpu_node.csv").write_text(
        "sn,cpu_milli,memory_mib,gpu,model\n"
        + "".join(f"n{i},32000,100000,2,{model}\n" for i, model in enumerate(["T4", "T4", "P100"]))
    )
    (tmp_path / "openb_pod_list_tiny.csv").write_text(
        "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n"
        + "".join(
            f"p{i},{1000 * (i % 4 + 1)},512,{int(i % 5 > 0)},{milli},{'T4|P100' if i % 7 == 1 else ''}\n"
            for i, milli in enumerate([0, 160, 300, 540, 1000] * 8)
        )
    )  # fmt: skip
    monkeypatch.setenv("DATAHALL_OPENB", str(tmp_path))
    return tmp_path


listed = st.lists(
    st.builds(PodClass, st.just(1000), st.just(10), st.just(1), st.sampled_from([100, 500, 1000])),
    min_size=1,
    max_size=60,
)


@given(listed, st.integers(0, 5))
def test_arrivals_ask_for_130_percent_of_the_gpus_and_not_more(pods, seed):
    capacity = 10_000
    arriving = openb.arrivals(pods, capacity, seed)
    asked = sum(pod.all_gpu_milli for pod in arriving)
    # The draw that would pass the limit ends it: less than the largest pod is missing.
    assert 1.3 * capacity - 1000 < asked <= 1.3 * capacity
    assert set(arriving) <= set(pods)
    assert arriving == openb.arrivals(pods, capacity, seed)


def test_a_list_below_the_limit_comes_whole_before_any_pod_comes_again():
    pods = [PodClass(1000 + i, 10, 1, 1000) for i in range(10)]
    arriving = openb.arrivals(pods, 10_000, 1)
    assert sorted(pod.cpu_milli for pod in arriving[:10]) == list(range(1000, 1010))
    assert [pod.cpu_milli for pod in arriving[:10]] != list(range(1000, 1010))
    assert len(arriving) == 13


def test_a_trace_is_read_as_published(trace):
    hall = openb.hall(trace)
    assert hall.gpu_milli == 6_000
    assert [hall.kinds[kind].model for kind in hall.nodes] == ["T4", "T4", "P100"]
    pods = openb.pods(trace, "tiny")
    assert pods[0] == PodClass(1000, 512, 0, 0)
    assert pods[1] == PodClass(2000, 512, 1, 160, frozenset({"T4", "P100"}))
    assert pods[4] == PodClass(1000, 512, 1, 1000)


class TestBooks:
    @pytest.mark.parametrize(
        ("pod", "piece"),
        [
            (POD, 400),
            (PodClass(6_001, 0, 0, 0), 0),
            (PodClass(0, 901, 1, 100), 1000),
            (PodClass(0, 0, 1, 100, frozenset({"P100"})), 1000),
            (WHOLE, 0),
        ],
        ids=["gpu", "cpu", "memory", "model", "whole gpus"],
    )
    def test_what_does_not_fit_cannot_be_booked(self, pod, piece):
        books = Books(openb.Hall((T4,), (0,)))
        books.enter(POD, Place(0, 1000))
        with pytest.raises(AssertionError):
            books.enter(pod, Place(0, piece))

    def test_they_know_what_fits_somewhere(self):
        books = Books(openb.Hall((T4,), (0, 0)))
        assert books.fits_somewhere(WHOLE)
        books.take(POD, 0, [0])
        assert books.fits_somewhere(WHOLE)
        books.take(POD, 1, [1])
        assert not books.fits_somewhere(WHOLE)
        assert books.fits_somewhere(PodClass(6_000, 0, 1, 1000))
        assert not books.fits_somewhere(PodClass(6_001, 0, 1, 1000))
        books.take(POD, 1, [1], -1)
        assert books.fits_somewhere(WHOLE)


@pytest.mark.parametrize("policy", POLICIES)
def test_each_policy_fills_the_hall_and_refuses_only_what_fits_nowhere(policy, trace):
    outcome = run("tiny", policy, 1)
    assert outcome.refused_though_fitting == 0
    assert (outcome.allocated[1:] >= outcome.allocated[:-1]).all()
    assert 60 < outcome.allocated[130] <= 100
    assert outcome.watts[130] > outcome.watts[0] > 0


def test_a_reading_is_the_mean_over_the_arrivals_that_round_to_its_per_cent(tmp_path, monkeypatch):
    """The authors' reading: where a hall still fills at 100 %, the last arrival before 101 % would say more."""
    (tmp_path / openb.NODES).write_text("sn,cpu_milli,memory_mib,gpu,model\nn,1000000,1000000,8,T4\n")
    (tmp_path / f"{openb.LIST}even.csv").write_text(
        "name,cpu_milli,memory_mib,num_gpu,gpu_milli\n" + "".join(f"p{i},1,1,1,20\n" for i in range(600))
    )
    monkeypatch.setenv("DATAHALL_OPENB", str(tmp_path))
    # Each pod asks for 0.25 % of the hall: 9.5 to 10.5 % round to 10, since halves go to the even number.
    outcome = run("even", "bestfit", 1)
    assert outcome.allocated[10] == pytest.approx((9.5 + 9.75 + 10 + 10.25 + 10.5) / 5)
    assert outcome.allocated[11] == pytest.approx((10.75 + 11 + 11.25) / 3)
    assert outcome.allocated[130] == 100


class TestLines:
    def test_of_several_seeds_have_mean_and_deviation(self, trace):
        outcomes = [run("tiny", "bestfit", seed) for seed in (1, 2, 3)]
        line = packing.line("tiny", "bestfit", outcomes)
        at = sorted(float(outcome.allocated[130]) for outcome in outcomes)
        assert line["allocated_percent_130_mean"] == pytest.approx(sum(at) / 3, abs=0.006)
        assert (line["allocated_percent_130_sd"] > 0) == (at[0] < at[2])
        assert (line["seeds"], line["mode"], line["refused_though_fitting"]) == (3, "online", 0)
        assert line["allocated_percent_130_published"] is None

    def test_stand_beside_what_was_published(self, trace):
        line = packing.line("default", "fgd", [run("tiny", "fgd", 1)])
        assert line["allocated_percent_130_published"] == 95.39
        assert line["allocated_percent_100_published"] == 95.23
        assert len(published.ALLOCATED_PERCENT) == 17 * 6

    def test_of_power_compare_with_fgd_load_by_load(self, trace):
        outcomes = {policy: [run("tiny", policy, 1)] for policy in ("fgd", "datahall-power")}
        lines = packing.power_lines("tiny", outcomes)
        assert [line["arrived_percent"] for line in lines] == [*range(10, 101, 10)] * 2
        assert {line["watts_below_fgd_percent"] for line in lines[:10]} == {0.0}
        assert {line["allocated_below_fgd_points"] for line in lines[:10]} == {0.0}
        assert packing.power_lines("tiny", {"datahall-power": outcomes["datahall-power"]}) == []


class TestCommand:
    def test_runs_what_is_asked_for_and_prints_one_object_per_line(self, trace, capsys):
        packing.main(
            ["--traces", "tiny", "--policies", "bestfit,datahall", "--seeds", "2", "--processes", "1"]
        )
        out, err = capsys.readouterr()
        lines = [json.loads(text) for text in out.splitlines()]
        assert [(line["policy"], line["seeds"]) for line in lines] == [("bestfit", 2), ("datahall", 2)]
        assert "4 of 4 runs" in err

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--traces", "tiny nope"], "no list in .* named nope; there are: tiny$"),
            (["--policies", "worst"], "no policy worst; there are: random, .*fgd, .*datahall"),
        ],
    )
    def test_an_unknown_name_is_told_with_those_there_are(self, arguments, said, trace):
        with pytest.raises(SystemExit, match=said):
            packing.main(arguments)

    def test_a_folder_without_the_trace_is_told_with_what_it_should_hold(self, tmp_path, monkeypatch):
        monkeypatch.setenv("DATAHALL_OPENB", str(tmp_path))
        with pytest.raises(SystemExit, match=f"{tmp_path} does not hold openb_node_list.*DATAHALL_OPENB"):
            packing.main([])
