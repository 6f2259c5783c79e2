"""What must hold when real processes die, are stopped, or are started anew."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from datahall_trainer.artifact import load_manifest, load_model

UID = "uid-1"
CHECKPOINTS = f"models/tiny/.checkpoints/{UID}"
# 36 samples to train on in batches of 8: 4 steps per epoch, 60 steps.
LONG = {"epochs": 15}


@pytest.fixture
def unbroken(gang, job):
    """The digest that an undisturbed run of 2 ranks ends with, its output set aside."""

    def run(config=None):
        config = config or job(training=LONG)
        gang.start(config)
        assert gang.wait() == [0, 0], gang.logs()
        return gang.message(0)["output"]["digest"]

    return run


def separate(config, name="other"):
    """The same job writing elsewhere."""
    return config | {"output": {"uri": f"pvc://models/{name}", "formats": ["safetensors"]}}


def test_a_gang_trains_and_says_so(gang, job, pvc):
    gang.start(job(training={"epochs": 6}))
    assert gang.wait() == [0, 0], gang.logs()
    message = gang.message(0)
    assert message["result"] == "Succeeded"
    progress = message["progress"]
    assert (progress["step"], progress["totalSteps"], progress["epoch"], progress["epochs"]) == (24, 24, 6, 6)
    assert progress["device"] == "cpu"
    assert {"loss", "validation_accuracy", "validation_f1", "validation_roc_auc"} <= set(progress["metrics"])
    assert message["checkpoint"]["uri"] == f"pvc://{CHECKPOINTS}/step-00000024"
    assert not gang.place(1, "message").exists(), "only rank 0 reports success"
    directory = pvc / message["output"]["uri"].removeprefix("pvc://")
    manifest, model = load_model(directory, message["output"]["digest"], "cpu")
    assert directory.name == message["output"]["digest"].removeprefix("sha256:")[:16]
    assert manifest.metrics["accuracy"] == progress["metrics"]["validation_accuracy"]
    assert model(torch.zeros(1, 1, 12, 12)).shape == (1, 3)
    accuracy = 100 * manifest.metrics["accuracy"]
    assert gang.text(0, "stdout") == f"held-out accuracy: {accuracy:.1f} %\n"
    assert gang.text(1, "stdout") == ""
    assert "simulated" in gang.text(0)
    assert sorted(p.name for p in (pvc / CHECKPOINTS).iterdir()) == [
        "FENCE",
        "step-00000020",
        "step-00000024",
    ]


def test_killed_and_restarted_ends_with_the_same_bits(gang, job, unbroken):
    digest = unbroken()
    config = separate(job(training=LONG))
    gang.start(config)
    gang.await_file(f"models/other/.checkpoints/{UID}/step-00000010/manifest.json")
    gang.kill(1)
    began = time.monotonic()
    assert gang.wait(30) == [75, -signal.SIGKILL]
    assert time.monotonic() - began < 15, "a lost peer is noticed in seconds"
    message = gang.message(0)
    assert (message["result"], message["cause"]) == ("Failed", "PeerLost")
    assert message["lastLogLines"]
    gang.start(config)
    assert gang.wait() == [0, 0], gang.logs()
    assert "resuming from the checkpoint of step" in gang.text(0)
    assert gang.message(0)["output"]["digest"] == digest


@pytest.mark.parametrize("stopped", [0, 1])
def test_sigterm_to_one_rank_saves_on_all_and_resumes_with_the_same_bits(gang, job, unbroken, pvc, stopped):
    # Far more than the test waits for, so that the signal always comes in mid-run; saved by the signal alone.
    digest = unbroken(job(training=LONG, checkpoint={"everySteps": 7, "keep": 9}))
    config = separate(job(training=LONG, checkpoint={"everySteps": 7, "keep": 9}))
    gang.start(config)
    gang.await_file(f"models/other/.checkpoints/{UID}/step-00000007/manifest.json")
    gang.kill(stopped, signal.SIGTERM)
    assert gang.wait(30) == [143, 143], gang.logs()
    for rank in (0, 1):
        message = gang.message(rank)
        assert message["cause"] == "Interrupted"
        assert f"SIGTERM at rank {stopped}" in message["message"]
    step = int(message["message"].split("checkpoint of step ")[1].split()[0])
    assert (pvc / f"models/other/.checkpoints/{UID}/step-{step:08d}/manifest.json").exists()
    gang.start(config)
    assert gang.wait() == [0, 0], gang.logs()
    assert f"resuming from the checkpoint of step {step} of" in gang.text(0)
    assert gang.message(0)["output"]["digest"] == digest


def test_sigterm_while_waiting_for_peers_leaves_at_once(gang, job):
    gang.start(job(), PET_NNODES="3")
    deadline = time.monotonic() + 60
    while "samples to train on" not in gang.text(1) and time.monotonic() < deadline:
        time.sleep(0.05)
    # Rank 0 keeps the store that rank 1 waits at: gone first, it would be a lost peer to rank 1.
    for rank in (1, 0):
        gang.kill(rank, signal.SIGTERM)
        gang.await_end(rank, 20)
    assert gang.wait(20) == [143, 143], gang.logs()
    assert gang.message(1)["cause"] == "Interrupted"


def test_a_peer_that_never_comes_is_lost(gang, job):
    gang.start(job(), ranks=1, PET_NNODES="2", DATAHALL_COLLECTIVE_TIMEOUT_SECONDS="1")
    assert gang.wait(30) == [75]
    assert "1 of 2 ranks came within 1 s" in gang.message(0)["message"]


def test_a_damaged_checkpoint_is_passed_over(gang, job, unbroken, pvc):
    digest = unbroken()
    config = separate(job(training=LONG))
    gang.start(config)
    manifest = gang.await_file(f"models/other/.checkpoints/{UID}/step-00000015/manifest.json")
    gang.kill(0)
    gang.kill(1)
    gang.wait(30)
    newest = max(manifest.parent.parent.glob("step-*/state.pt"))
    raw = bytearray(newest.read_bytes())
    raw[len(raw) // 2] ^= 1
    newest.write_bytes(raw)
    gang.start(config)
    assert gang.wait() == [0, 0], gang.logs()
    assert f"checkpoint {newest.parent.name} is damaged" in gang.text(0)
    assert gang.message(0)["output"]["digest"] == digest


def test_an_earlier_generation_is_fenced(gang, job, pvc):
    gang.start(job(training={"epochs": 500}))
    gang.await_file(f"{CHECKPOINTS}/step-00000005/manifest.json")
    (pvc / CHECKPOINTS / "FENCE").write_text("2\n")
    assert gang.wait(60) == [75, 75], gang.logs()
    for rank in (0, 1):
        assert "generation 2 has taken over" in gang.message(rank)["message"]
    before = sorted(p.name for p in (pvc / CHECKPOINTS).iterdir())
    # A late start of the fenced generation writes nothing either.
    gang.start(job(), generation=1)
    assert gang.wait(60) == [75, 75]
    assert sorted(p.name for p in (pvc / CHECKPOINTS).iterdir()) == before
    assert not (pvc / "models/tiny/versions").exists()


def test_a_restart_after_the_end_finds_the_same_model(gang, job, unbroken, pvc):
    config = job(training=LONG)
    digest = unbroken(config)
    gang.start(config)
    assert gang.wait() == [0, 0]
    assert gang.message(0)["output"]["digest"] == digest
    assert len(list((pvc / "models/tiny/versions").iterdir())) == 1


def test_the_number_of_ranks_changes_only_the_last_bits(gang, job, pvc):
    weights = []
    for ranks in (1, 2, 3):
        config = separate(job(training={"epochs": 3}), f"ranks-{ranks}")
        gang.start(config, ranks=ranks)
        assert gang.wait() == [0] * ranks, gang.logs()
        directory = pvc / gang.message(0)["output"]["uri"].removeprefix("pvc://")
        weights.append(load_model(directory, None, "cpu")[1].state_dict())
    for other in weights[1:]:
        for name, tensor in weights[0].items():
            torch.testing.assert_close(other[name], tensor, rtol=1e-3, atol=1e-4)


BAD = {
    "no such directory": (
        {"data": {"train": "pvc://data/nowhere"}},
        "data.train: pvc://data/nowhere: no such directory",
    ),
    "batch smaller than the gang": (
        {"training": {"batchSize": 1}},
        "training.batchSize: 1 samples cannot be",
    ),
    "unknown architecture": ({"model": {"architecture": "vgg"}}, "model.architecture: 'vgg' is unknown"),
    "negative epochs": ({"training": {"epochs": -1}}, "training: epochs must be at least 1"),
    "fp16 without a GPU": ({"training": {"precision": "fp16"}}, "training.precision: fp16 needs a CUDA GPU"),
    "loss is no number": (
        {"training": {"learningRate": "1e30", "epochs": 9}},
        "training: the loss is not a finite number at step ",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_on_every_rank(gang, job, name):
    changes, sentence = BAD[name]
    gang.start(job(**changes))
    assert gang.wait(60) == [65, 65], gang.logs()
    messages = [gang.message(rank) for rank in (0, 1)]
    assert messages[0]["message"] == messages[1]["message"]
    assert sentence in messages[0]["message"]
    assert {m["cause"] for m in messages} == {"BadInput"}


def test_a_malformed_configuration_is_named(gang):
    gang.start('{"job": ')
    assert gang.wait(30) == [65, 65]
    assert "not valid JSON" in gang.message(1)["message"]


def test_an_unreadable_image_is_named(gang, job, pvc):
    (pvc / "data/shapes/1/003.png").write_bytes(b"no picture at all")
    gang.start(job())
    assert gang.wait(30) == [65, 65]
    sentence = "data.train: pvc://data/shapes/1/003.png: cannot identify image file"
    assert [gang.message(rank)["message"] for rank in (0, 1)] == [sentence, sentence]


def test_an_image_found_unreadable_in_mid_run_is_the_cause_of_the_rank_that_met_it(gang, job, pvc):
    # Decoded at each use, so only the rank whose share it is meets it, and the other loses its peer.
    (pvc / "data/shapes/2/005.png").write_bytes(b"no picture at all")
    gang.start(job(training={"epochs": 3}), DATAHALL_IMAGE_CACHE_BYTES="1")
    codes = gang.wait(60)
    assert 65 in codes, gang.logs()
    assert set(codes) <= {65, 75}, gang.logs()
    assert "2/005.png: cannot identify image file" in gang.message(codes.index(65))["message"]


def test_ranks_that_see_different_data_are_told(gang, job, pvc, tmp_path):
    config = job()
    gang.start(config, ranks=2)
    gang.stop()
    gang.start(config | {"training": config["training"] | {"seed": 8}}, ranks=1)
    gang.stop()
    # Two processes of one gang with two configurations stand for two claims of one name.
    from datahall_trainer.place import free_port

    environment = {"PET_NNODES": "2", "PET_MASTER_PORT": str(free_port())}
    gang.start(config, ranks=1, **environment)
    first = list(gang._pids)
    gang.start(separate(config), ranks=1, generation=gang.generation, PET_NODE_RANK="1", **environment)
    gang._pids = first + gang._pids
    assert gang.wait(60) == [65, 65]
    assert "do not see the same data" in gang.message(0)["message"]


def test_no_space_left_is_the_same_sentence_everywhere(gang, job, pvc):
    # Root may write anywhere, so a file where the directory should be stands for a disk that refuses.
    (pvc / "models/tiny").mkdir()
    (pvc / "models/tiny/.checkpoints").write_text("")
    gang.start(job())
    assert gang.wait(60) == [65, 65], gang.logs()
    assert [gang.message(r)["message"].startswith("output.uri: pvc://models/tiny: ") for r in (0, 1)] == [
        True,
        True,
    ]


def launch(pvc: Path, tmp_path: Path, config: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "datahall_trainer"],
        env={
            **os.environ,
            "DATAHALL_JOB_CONFIG": config,
            "DATAHALL_PVC_ROOT": str(pvc),
            "DATAHALL_TERMINATION_LOG": str(tmp_path / "message"),
            **env,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_who_only_starts_ranks_does_not_load_pytorch():
    program = "import sys, datahall_trainer.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_two_processes_in_one_worker_end_with_the_bits_of_two_workers(pvc, tmp_path, job, unbroken):
    import json

    config = job(training={"epochs": 3})
    digest = unbroken(config)
    out, err = launch(
        pvc, tmp_path, json.dumps(separate(config)), PET_NPROC_PER_NODE="2", DATAHALL_SIMULATED_GPU="1"
    ).communicate(timeout=120)
    assert out.startswith("held-out accuracy: "), err
    message = json.loads((tmp_path / "message").read_text())
    assert message["output"]["digest"] == digest
    assert load_manifest(pvc / message["output"]["uri"].removeprefix("pvc://")).task == "ImageClassification"


def test_a_rank_killed_inside_a_worker_ends_the_worker(pvc, tmp_path, job):
    import json

    worker = launch(
        pvc,
        tmp_path,
        json.dumps(job(training={"epochs": 5000})),
        PET_NPROC_PER_NODE="2",
        DATAHALL_SIMULATED_GPU="1",
    )
    deadline = time.monotonic() + 100
    while not (pvc / CHECKPOINTS / "step-00000005/manifest.json").exists():
        assert time.monotonic() < deadline
        assert worker.poll() is None
        time.sleep(0.02)
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    _, err = worker.communicate(timeout=60)
    assert worker.returncode == 137, err
