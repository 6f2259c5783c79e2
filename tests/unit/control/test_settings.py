from __future__ import annotations

import pytest

from datahall.control.settings import Settings, SettingsError

NUMBERS = [
    "DATAHALL_REPORT_PORT",
    "DATAHALL_PROBE_PORT",
    "DATAHALL_WORKERS",
    "DATAHALL_WRITES_PER_SECOND",
    "DATAHALL_START_TIMEOUT_SECONDS",
    "DATAHALL_LEASE_SECONDS",
]


def test_nothing_set_is_a_working_operator():
    settings = Settings.from_environment({})
    assert settings.namespace == "datahall-system"
    assert settings.pod_name
    assert (settings.report_port, settings.probe_port, settings.workers) == (8080, 8081, 32)
    assert (settings.report_url, settings.priority_class) == (None, None)
    assert (settings.image_pull_policy, settings.log_level) == ("IfNotPresent", "info")


def test_every_variable_is_read():
    settings = Settings.from_environment(
        {
            "POD_NAME": "operator-1",
            "POD_NAMESPACE": "hall",
            "POD_IP": "10.0.0.7",
            "DATAHALL_TRAINER_IMAGE": "registry/trainer:1",
            "DATAHALL_IMAGE_PULL_POLICY": "Always",
            "DATAHALL_PRIORITY_CLASS": "training",
            "DATAHALL_REPORT_URL": "http://operator",
            "DATAHALL_REPORT_PORT": "9000",
            "DATAHALL_PROBE_PORT": "9001",
            "DATAHALL_WORKERS": "4",
            "DATAHALL_WRITES_PER_SECOND": "50",
            "DATAHALL_START_TIMEOUT_SECONDS": "60",
            "DATAHALL_LEASE_SECONDS": "15",
            "DATAHALL_LOG_LEVEL": "debug",
        }
    )
    assert settings == Settings(
        pod_name="operator-1",
        namespace="hall",
        address="10.0.0.7:9000",
        trainer_image="registry/trainer:1",
        image_pull_policy="Always",
        priority_class="training",
        report_url="http://operator",
        report_port=9000,
        probe_port=9001,
        workers=4,
        writes_per_second=50.0,
        start_timeout_seconds=60.0,
        lease_seconds=15.0,
        log_level="debug",
    )
    assert settings.identity == "operator-1/10.0.0.7:9000"


def test_an_address_of_version_6_stands_in_brackets():
    assert Settings.from_environment({"POD_IP": "fd00::7"}).address == "[fd00::7]:8080"


def test_an_empty_variable_is_one_that_is_not_set():
    empty = dict.fromkeys([*NUMBERS, "POD_NAME", "POD_NAMESPACE", "POD_IP", "DATAHALL_REPORT_URL"], "")
    assert Settings.from_environment(empty) == Settings.from_environment({})


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("text", ["many", "1.5", "0x10", "--1"])
def test_what_is_no_number_is_refused_by_variable_and_value(name, text):
    with pytest.raises(SettingsError, match=f"^{name}: '{text}' is not a whole number$"):
        Settings.from_environment({name: text})


@pytest.mark.parametrize(
    ("name", "text", "bounds"),
    [
        ("DATAHALL_REPORT_PORT", "65536", "0 and 65535"),
        ("DATAHALL_PROBE_PORT", "-1", "0 and 65535"),
        ("DATAHALL_WORKERS", "0", "1 and 1024"),
        ("DATAHALL_WRITES_PER_SECOND", "0", "1 and 100000"),
        ("DATAHALL_START_TIMEOUT_SECONDS", "0", "1 and 86400"),
        ("DATAHALL_LEASE_SECONDS", "2", "3 and 3600"),
    ],
)
def test_what_is_out_of_range_is_refused_with_the_range(name, text, bounds):
    with pytest.raises(SettingsError, match=f"^{name}: {text} is not between {bounds}$"):
        Settings.from_environment({name: text})
