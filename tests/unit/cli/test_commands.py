"""Every command through typer, against the API server in memory: what is printed where, and the exit code."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from datahall.cli.app import app
from datahall.cli.options import seconds
from tests.unit.cli.conftest import Run
from tests.unit.sdk import samples
from tests.unit.sdk.fake_api import FakeApi


def page(text: str) -> str:
    return textwrap.dedent(text).lstrip("\n")


def test_the_commands_grow_only_on_purpose() -> None:
    assert [command.name or command.callback.__name__ for command in app.registered_commands] == [
        "submit",
        "list",
        "queue",
        "moves",
        "explain",
        "describe",
        "logs",
        "wait",
        "predict",
        "suspend",
        "resume",
        "delete",
        "version",
    ]


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom datahall.cli import main\nsys.argv = ['datahall', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'kubernetes', 'pydantic', 'rich', 'aiohttp', 'yaml', 'asyncio', 'datahall.api.common'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "submit" in done.stdout
    assert "Exit codes: 0 done" in done.stdout
    assert done.stderr.strip() == "[]"


def test_every_command_explains_itself(run: Run) -> None:
    for command in app.registered_commands:
        name = command.name or command.callback.__name__  # type: ignore[union-attr]
        shown = run(name, "--help")
        assert shown.exit_code == 0
        for line in shown.stdout.splitlines():
            assert len(line) <= 80


def test_list(api: FakeApi, run: Run) -> None:
    api.put(samples.job("big", **samples.running()))
    api.put(samples.job("digits", **samples.queued()))
    api.put(samples.service(**samples.ready()))
    shown = run("list")
    assert shown.exit_code == 0
    assert shown.stdout == page(
        """
        NAME    STATE    WAITING        WORKERS  PROGRESS  ETA  LOSS   ACCURACY  RESTARTS  NODES                  AGE
        big     Running  -              2/2      19%       77s  0.211  96.2%     0         gpu-node-1,gpu-node-2  4m
        digits  Queued   QuotaExceeded  0/2      -         -    -      -         0         -                      4m

        NAME    STATE  READY  MODEL         URL                       AGE
        digits  Ready  2/2    0123456789ab  http://digits.team-a.svc  4m
        """
    )
    assert shown.stderr == ""


def test_list_of_one_kind_wide_and_everywhere(api: FakeApi, run: Run) -> None:
    api.put(samples.job("digits", "team-b", **samples.queued()))
    shown = run("list", "tj", "-A", "-o", "wide", "--no-headers")
    assert (
        shown.stdout == f"team-b  digits  Queued  QuotaExceeded  0/2  -  -  -  -  0  -  4m  {samples.WAITS}\n"
    )


def test_list_for_programs(api: FakeApi, run: Run) -> None:
    stored = api.put(samples.job(**samples.running()))
    api.put({**samples.service(), "metadata": {**samples.service()["metadata"], "managedFields": [{}]}})
    answer = json.loads(run("list", "-o", "json").stdout)
    assert (answer["apiVersion"], answer["kind"]) == ("v1", "List")
    assert answer["items"][0] == stored
    assert "managedFields" not in answer["items"][1]["metadata"]
    assert yaml.safe_load(run("list", "-o", "yaml").stdout) == answer
    assert run("list", "-o", "name").stdout == "trainingjob/digits\ninferenceservice/digits\n"


def test_list_of_nothing(run: Run) -> None:
    shown = run("list", "-n", "team-z")
    assert (shown.exit_code, shown.stdout) == (0, "")
    assert shown.stderr == "There are no TrainingJobs or InferenceServices in namespace team-z.\n"
    assert json.loads(run("list", "-o", "json").stdout)["items"] == []


def test_list_shows_what_it_cannot_read(api: FakeApi, run: Run) -> None:
    body = samples.job(state="Running")
    body["spec"]["task"] = "Telepathy"
    api.put(body)
    shown = run("list", "tj", "--no-headers")
    assert shown.exit_code == 0
    assert shown.stdout.split() == ["digits", "Running", *"-" * 9]
    assert "cannot read TrainingJob digits: spec.task" in shown.stderr


def test_list_of_queues(api: FakeApi, run: Run) -> None:
    api.put(samples.queue())
    assert run("list", "queue").stdout == page(
        """
        NAME    GPUS                ADMITTED  WAITING  NAMESPACES  AGE
        team-a  H100:12/16,Any:0/8  3         1        team-a      4m
        """
    )


def test_describe_a_job_that_waits(api: FakeApi, run: Run) -> None:
    api.put(samples.job(**samples.queued()))
    api.put(samples.event(1, "Queued", "waits in team-a", series={"count": 3}))
    assert run("describe", "tj/digits").stdout == page(
        f"""
        TrainingJob digits in namespace team-a
        State:       Queued (QuotaExceeded)
        Why:         {samples.WAITS}
        Queue:       team-a, priority 0
        Task:        ImageClassification, 2 workers x 1 GPU (H100)
        Age:         4m

        Conditions
          TYPE    STATUS  REASON         SINCE  MESSAGE
          Queued  True    QuotaExceeded  4m     {samples.WAITS}

        Events
          LAST SEEN  TYPE    REASON  ABOUT               MESSAGE
          3m (x3)    Normal  Queued  TrainingJob/digits  waits in team-a
        """
    )


def test_describe_a_job_that_runs(api: FakeApi, run: Run) -> None:
    api.put(samples.job(**samples.running(lastCheckpoint=samples.CHECKPOINT)))
    api.put(samples.worker(0))
    shown = run("describe", "digits").stdout
    for line in (
        "Progress:    step 120 of 625, 19 %, epoch 1 of 5, 410 samples/s, on cpu, 77s to go",
        "Metrics:     loss 0.211, validation_accuracy 0.962",
        "Restarts:    0 counted of at most 3, 0 uncounted",
        "Checkpoint:  step 100, 1.2 MiB, 90s ago",
        "             pvc://models/digits/.checkpoints/6f0c/step-00000100",
        "Placement:   rank 0: gpu-node-1 (H100)",
        "             rank 1: gpu-node-2 (H100)",
        "  digits-g1-0  0     Running  0         gpu-node-1  4m   -",
    ):
        assert line in shown.splitlines()


def test_describe_a_job_that_failed(api: FakeApi, run: Run) -> None:
    api.put(samples.job(**samples.failed()))
    shown = run("describe", "digits").stdout
    assert (
        page(
            """
        Failure:     BadInput: data.train: pvc://data/digits/train: no such directory
                     pod digits-g1-0 on node gpu-node-1, rank 0, exit code 65, generation 1, 3m ago
                     | reading data
                     | no such directory
        """
        )
        in shown
    )


def test_describe_a_job_that_succeeded(api: FakeApi, run: Run) -> None:
    api.put(samples.job(**samples.succeeded()))
    shown = run("describe", "digits").stdout
    assert (
        page(
            f"""
        Output:      pvc://models/digits/versions/0123456789abcdef
                     {samples.DIGEST}
                     loss 0.05, validation_accuracy 0.987
        """
        )
        in shown
    )


def test_describe_a_service_and_a_queue(api: FakeApi, run: Run) -> None:
    api.put(samples.service("front", **samples.ready()))
    api.put(samples.queue())
    api.put(samples.job(**samples.queued()))
    api.put(samples.job("done", **samples.succeeded()))
    shown = run("describe", "front").stdout
    assert "Replicas:    2 of 2 ready, 2 with the present model" in shown
    assert "Model:       from tj/digits" in shown
    shown = run("describe", "queue/team-a").stdout
    assert "GPUs:        H100: 12 of 16 held\n             Any: 0 of 8 held\n" in shown
    assert f"trainingjob/digits      team-a     0         Queued  {samples.WAITS}" in shown
    assert "done" not in shown


def test_describe_for_programs(api: FakeApi, run: Run) -> None:
    stored = api.put(samples.job(**samples.running()))
    api.put(samples.worker(0))
    answer = json.loads(run("describe", "digits", "-o", "json").stdout)
    assert list(answer) == [
        "kind",
        "name",
        "namespace",
        "state",
        "reason",
        "message",
        "object",
        "pods",
        "events",
    ]
    assert answer["object"] == stored
    assert answer["pods"][0]["node"] == "gpu-node-1"


def test_submit_a_file_of_several(api: FakeApi, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    path.write_text(yaml.safe_dump_all([samples.queue(), samples.job(), samples.service()]))
    shown = run("submit", "-f", str(path))
    assert (
        shown.stdout
        == "queue/team-a submitted\ntrainingjob/digits submitted\ninferenceservice/digits submitted\n"
    )


def test_submit_from_standard_input_to_a_namespace(api: FakeApi, run: Run) -> None:
    manifest = samples.job()
    del manifest["metadata"]["namespace"]
    shown = run("submit", "-f", "-", "-n", "team-b", stdin=json.dumps(manifest))
    assert shown.stdout == "trainingjob/digits submitted\n"
    assert list(api.objects["trainingjobs"]) == [("team-b", "digits")]


def test_submit_and_wait(api: FakeApi, run: Run) -> None:
    api.on_watch["trainingjobs"].append(
        lambda: api.status("TrainingJob", "digits", **samples.running()) and "end"
    )
    api.on_watch["trainingjobs"].append(
        lambda: api.status("TrainingJob", "digits", **samples.succeeded()) and None
    )
    shown = run("submit", "-f", "-", "--wait", stdin=json.dumps(samples.job()))
    assert shown.exit_code == 0
    assert shown.stdout == page(
        """
        trainingjob/digits submitted
        trainingjob/digits Succeeded  loss 0.05  validation_accuracy 0.987  pvc://models/digits/versions/0123456789abcdef
        """
    )
    assert shown.stderr.splitlines() == [
        "Pending: the operator has not looked at it yet; if this lasts, is the operator running?",
        "step 120/625  19 %  loss 0.211  validation accuracy 0.962  eta 77 s",
        "Succeeded: trained in 3m",
    ]


def test_wait_for_a_job_that_fails(api: FakeApi, run: Run) -> None:
    api.put(samples.job(**samples.failed()))
    shown = run("wait", "digits")
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert shown.stderr.splitlines()[-3:] == [
        "datahall: TrainingJob digits failed: BadInput: data.train: pvc://data/digits/train: no such directory "
        "(pod digits-g1-0 on node gpu-node-1, rank 0, exit code 65)",
        "  | reading data",
        "  | no such directory",
    ]


def test_wait_times_out(api: FakeApi, run: Run) -> None:
    api.put(samples.job(**samples.queued()))
    shown = run("wait", "tj/digits", "--for", "running", "--timeout", "0.2")
    assert shown.exit_code == 3
    assert shown.stderr.splitlines()[-1] == (
        f"datahall: TrainingJob digits is not Running after 0.2 s; it is Queued: {samples.WAITS}"
    )


def test_wait_for_a_service(api: FakeApi, run: Run) -> None:
    api.put(samples.service(**samples.ready()))
    assert run("wait", "infs/digits").stdout == "inferenceservice/digits Ready\n"


def test_logs(api: FakeApi, run: Run) -> None:
    api.put(samples.job(**samples.running()))
    for rank in (0, 1):
        api.put(samples.worker(rank))
        api.log(f"digits-g1-{rank}", "a [bold]line[/bold]")
    assert run("logs", "digits").stdout == "[rank 0] a [bold]line[/bold]\n[rank 1] a [bold]line[/bold]\n"
    assert run("logs", "digits", "--rank", "1", "--tail", "1").stdout == "a [bold]line[/bold]\n"


def test_logs_announce_a_restart(api: FakeApi, run: Run) -> None:
    api.put(samples.job(workers=1, **samples.running()))
    api.put(samples.worker(0))
    api.log("digits-g1-0", "one")

    def restarts() -> None:
        api.log("digits-g1-0", close=True)
        api.log("digits-g2-0", "two", close=True)
        api.put(samples.worker(0, generation=2))

    def ends() -> None:
        api.status("TrainingJob", "digits", **samples.succeeded())

    api.on_log["digits-g1-0"] = restarts
    api.on_log["digits-g2-0"] = ends
    shown = run("logs", "digits", "-f")
    assert shown.stdout == "one\ntwo\n"
    assert shown.stderr == "--- the gang restarted: generation 2 ---\n"


def classify(path: str, body: samples.Json) -> tuple[int, samples.Json]:
    results = [{"classes": [{"label": f"n{len(each)}", "score": 0.9981}]} for each in body["inputs"]]
    return 200, {"model": "digits", "digest": samples.DIGEST, "results": results}


def test_predict(api: FakeApi, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api.proxy = classify
    monkeypatch.chdir(tmp_path)
    Path("seven.png").write_bytes(b"\x89PNG\r\n")
    Path("a.txt").write_text("a good one\n")
    shown = run("predict", "digits", "seven.png", "a.txt", "--text", "fine")
    assert [line.split() for line in shown.stdout.splitlines()] == [
        ["fine", "n4", "0.998"],
        ["seven.png", "n8", "0.998"],
        ["a.txt", "n10", "0.998"],
    ]


def test_predict_from_standard_input(api: FakeApi, run: Run) -> None:
    api.proxy = classify
    shown = run("predict", "infs/digits", "-", "--json", stdin="one\n\nthree\n")
    assert json.loads(shown.stdout) == {
        "model": "digits",
        "digest": samples.DIGEST,
        "results": [
            {"input": "one", "classes": [{"label": "n3", "score": 0.9981}]},
            {"input": "three", "classes": [{"label": "n5", "score": 0.9981}]},
        ],
    }
    assert run("predict", "digits", "-", stdin=b"\x89PNG").stdout == "standard input  n8  0.998\n"


def test_suspend_resume_delete(api: FakeApi, run: Run) -> None:
    api.put(samples.job())
    assert run("suspend", "digits").stdout == "trainingjob/digits suspended\n"
    assert api.objects["trainingjobs"]["team-a", "digits"]["spec"]["suspend"] is True
    assert run("resume", "tj/digits").stdout == "trainingjob/digits resumed\n"
    assert api.objects["trainingjobs"]["team-a", "digits"]["spec"]["suspend"] is False
    assert run("delete", "digits", "--wait").stdout == "trainingjob/digits deleted\n"
    assert not api.objects["trainingjobs"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("0.5", 0.5), ("90s", 90), ("1h30m", 5400), ("250ms", 0.25), ("1.5m", 90)],
)
def test_durations(text: str, expected: float) -> None:
    assert seconds(text) == expected


def test_version(run: Run) -> None:
    assert run("version").stdout == "datahall 0.1.0 (datahall.dev/v1alpha1)\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("describe", "pod/x"), 2, "there is no kind 'pod'"),
        (("describe", "tj/"), 2, "'tj/' names no object"),
        (
            ("describe", "x"),
            2,
            "there is no TrainingJob or InferenceService x in namespace team-a, and no Queue",
        ),
        (("describe", "x", "-o", "name"), 2, "describe has no name form"),
        (("explain", "x"), 2, "there is no TrainingJob or InferenceService x in namespace team-a"),
        (("explain", "tj/x"), 2, 'trainingjobs.datahall.dev "x" not found'),
        (("explain", "queue/x"), 2, "a Queue does not wait; see `datahall queue x`"),
        (("explain", "x", "-o", "wide"), 2, "explain has no wide form"),
        (("queue", "x"), 2, 'queues.datahall.dev "x" not found'),
        (("queue", "-o", "name"), 2, "queue has no name form"),
        (("moves", "-o", "wide"), 2, "moves has no wide form"),
        (("list", "pods"), 2, "there is no kind 'pods'"),
        (("list", "-o", "xml"), 2, "xml"),
        (("wait", "x"), 2, "TrainingJob x does not exist in namespace team-a"),
        (("wait", "x", "--for", "lunch"), 2, "a TrainingJob is never 'lunch'"),
        (("logs", "queue/x"), 2, "a Queue runs nothing"),
        (("predict", "x"), 2, "give a FILE, - or --text"),
        (("predict", "x", "/none.png"), 2, "/none.png: No such file or directory"),
        (("predict", "x", "--text", "a"), 1, "x answered 500: boom"),
        (("submit", "-f", "/none.yaml"), 2, "/none.yaml: No such file or directory"),
        (("submit",), 2, "-f"),
        (("suspend", "infs/x"), 2, "a InferenceService cannot be suspended"),
        (("delete", "x"), 2, "not found"),
        (("list", "--context", "nowhere"), 4, "no usable Kubernetes login"),
        (("list", "--kubeconfig", "/none"), 4, "datahall: there is no kubeconfig /none"),
        (("wait", "x", "--timeout", "soon"), 2, "'soon' is no duration"),
        (("wait", "x", "--timeout", "-5"), 2, "'-5' is no duration"),
        (("frobnicate",), 2, "frobnicate"),
    ],
)
def test_errors_are_one_sentence(
    api: FakeApi, run: Run, arguments: tuple[str, ...], code: int, message: str
) -> None:
    api.proxy = lambda path, body: (500, {"error": "boom"})
    shown = run(*arguments)
    assert (shown.exit_code, shown.stdout) == (code, "")
    assert message in shown.stderr
    assert "Traceback" not in shown.stderr


def test_list_without_the_kinds_says_what_to_install(api: FakeApi, run: Run) -> None:
    api.installed = False
    shown = run("list")
    assert shown.exit_code == 4
    assert shown.stderr == (
        "datahall: the cluster does not know Datahall's kinds; install them with "
        "`helm install datahall charts/datahall` or `kubectl apply -f crds/`\n"
    )


def test_forbidden(api: FakeApi, run: Run) -> None:
    api.forbidden.add("trainingjobs")
    shown = run("list")
    assert shown.exit_code == 4
    assert shown.stderr == 'datahall: trainingjobs is forbidden: User "me" cannot list resource\n'
