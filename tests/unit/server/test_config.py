"""What the process reads at its start, and what it writes at its end."""

import json

import pytest

from datahall_server import config, termination
from datahall_server.engine import threads
from datahall_server.errors import StartError

CONTRACT = {
    "name": "digits",
    "namespace": "team-a",
    "model": {"uri": "pvc://models/digits/versions/0123456789abcdef", "digest": "sha256:" + "a" * 64},
    "batching": {"maxBatchSize": 32, "maxDelayMilliseconds": 5, "maxQueue": 1024},
    "timeoutSeconds": 10.0,
    "postprocess": {"topK": 3, "threshold": 0.0},
    "port": 8080,
}


def load(**changes):
    return config.load({"DATAHALL_SERVER_CONFIG": json.dumps({**CONTRACT, **changes})})


def test_the_contract_is_read():
    loaded = load()
    assert loaded.batching.max_delay_milliseconds == 5
    assert loaded.postprocess.top_k == 3
    assert load(model={"uri": "pvc://a/b", "digest": None}).model.digest is None


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"batching": {"maxBatchSize": 0}}, "maxBatchSize"),
        ({"batching": {"maxBatchsize": 1}}, "maxBatchsize"),
        ({"timeoutSeconds": 0}, "timeoutSeconds"),
        ({"model": {"uri": "pvc://a/b", "digest": "sha256:12"}}, "digest"),
        ({"postprocess": {"threshold": 1.5}}, "threshold"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_bad_configuration_names_the_field(changes, names):
    with pytest.raises(StartError, match=names):
        load(**changes)


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_no_configuration_at_all(text):
    with pytest.raises(StartError, match="DATAHALL_SERVER_CONFIG"):
        config.load({"DATAHALL_SERVER_CONFIG": text})


def test_limits_come_from_the_environment():
    limits = config.Limits.from_environment(
        {"DATAHALL_DRAIN_SECONDS": "0.5", "DATAHALL_MAX_BODY_BYTES": "100"}
    )
    assert (limits.drain_seconds, limits.max_body_bytes) == (0.5, 100)
    for bad in ("many", "-1"):
        with pytest.raises(StartError, match="DATAHALL_MAX_BODY_BYTES"):
            config.Limits.from_environment({"DATAHALL_MAX_BODY_BYTES": bad})


def test_threads_follow_the_cpu_limit(tmp_path):
    assert threads.engine_threads({"DATAHALL_THREADS": "3"}) == 3
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert threads.cpu_quota(tmp_path) == 0.5
    assert threads.engine_threads({}, tmp_path) == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert threads.cpu_quota(tmp_path) is None
    assert threads.engine_threads({}, tmp_path) >= 1


def test_threads_follow_the_cpu_limit_of_cgroup_1(tmp_path):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("250000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert threads.cpu_quota(tmp_path) == 2.5
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert threads.cpu_quota(tmp_path) is None


def test_a_user_s_openmp_settings_win():
    environment = threads.engine_environment({"DATAHALL_THREADS": "2", "OMP_WAIT_POLICY": "ACTIVE"})
    assert environment["OMP_NUM_THREADS"] == "2"
    assert environment["OMP_WAIT_POLICY"] == "ACTIVE"


def test_the_termination_message_fits_and_is_json(tmp_path, monkeypatch):
    path = tmp_path / "message"
    monkeypatch.setenv("DATAHALL_TERMINATION_LOG", str(path))
    termination.write(cause="BadInput", message="ä" * 10_000)
    assert path.stat().st_size <= 4000
    written = json.loads(path.read_bytes())
    assert (written["result"], written["cause"]) == ("Failed", "BadInput")
    monkeypatch.setenv("DATAHALL_TERMINATION_LOG", str(tmp_path / "no" / "such"))
    termination.write(cause="BadInput", message="still no exception")
