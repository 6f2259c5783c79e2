"""Checkpoints: complete or not there, verified, fenced, few."""

import errno
import json
from pathlib import Path

import pytest
import torch

from datahall_trainer import checkpoint
from datahall_trainer.checkpoint import CheckpointStore
from datahall_trainer.errors import BadInput, Fenced

STATE = {"step": 1, "model": {"w": torch.arange(10_000.0)}, "validation": {"validation_loss": 0.5}}


@pytest.fixture
def store(pvc):
    made = CheckpointStore("pvc://models/m", "uid", generation=1, keep=2)
    made.take_over()
    return made


@pytest.fixture
def directory(pvc):
    return pvc / "models/m/.checkpoints/uid"


def test_what_was_saved_is_loaded(store, directory):
    saved = store.save(100, STATE, world_size=2)
    assert saved.uri == "pvc://models/m/.checkpoints/uid/step-00000100"
    assert saved.bytes == sum(f.stat().st_size for f in (directory / "step-00000100").iterdir())
    found = store.newest_valid()
    assert found is not None
    assert found.step == 100
    assert torch.equal(store.load(found)["model"]["w"], STATE["model"]["w"])
    message = found.to_message()
    assert set(message) == {"step", "uri", "bytes", "time"}
    assert message["time"].endswith("Z")


def test_only_the_newest_are_kept(store, directory):
    for step in (1, 2, 10, 9):
        store.save(step, STATE, world_size=1)
    assert sorted(p.name for p in directory.iterdir()) == ["FENCE", "step-00000009", "step-00000010"]


@pytest.mark.parametrize("damage", ["bit", "cut", "no state", "bad manifest", "no manifest"])
def test_the_newest_undamaged_one_is_used(store, directory, caplog, damage):
    store.save(1, STATE, world_size=1)
    store.save(2, STATE, world_size=1)
    state, manifest = directory / "step-00000002/state.pt", directory / "step-00000002/manifest.json"
    raw = bytearray(state.read_bytes())
    match damage:
        case "bit":
            raw[5000] ^= 4
            state.write_bytes(raw)
        case "cut":
            state.write_bytes(raw[:5000])
        case "no state":
            state.unlink()
        case "bad manifest":
            manifest.write_text("{")
        case "no manifest":
            manifest.unlink()
    found = store.newest_valid()
    assert found is not None
    assert found.step == 1
    if damage != "no manifest":
        assert "step-00000002 is damaged" in caplog.text
    # And its place can be taken again.
    store.save(2, STATE, world_size=1)
    assert store.newest_valid().step == 2


def test_nothing_saved_is_nothing_found(store):
    assert store.newest_valid() is None


def test_a_later_generation_shuts_out_an_earlier_one(store, directory):
    store.save(1, STATE, world_size=1)
    later = CheckpointStore("pvc://models/m", "uid", generation=2, keep=2)
    later.take_over()
    assert (directory / "FENCE").read_text().strip() == "2"
    for action in (lambda: store.save(2, STATE, world_size=1), store.take_over, store.check_fence):
        with pytest.raises(Fenced, match="generation 2 has taken over"):
            action()
    assert later.newest_valid().step == 1
    later.take_over()  # the same generation may come again


def test_a_fence_raised_while_writing_is_seen_before_publishing(store, directory, monkeypatch):
    write = checkpoint._save_state

    def slow(path, state):
        (directory / "FENCE").write_text("2\n")
        return write(path, state)

    monkeypatch.setattr(checkpoint, "_save_state", slow)
    with pytest.raises(Fenced):
        store.save(1, STATE, world_size=1)
    assert [p.name for p in directory.iterdir()] == ["FENCE"]


def test_a_full_disk_is_a_sentence_and_leaves_nothing(store, directory, monkeypatch):
    opened = Path.open

    def full(self, mode="r", *arguments, **options):
        # The kernel's own full device, so that torch's writer meets a real ENOSPC.
        if self.name == "state.pt":
            return opened(Path("/dev/full"), mode, buffering=0)
        return opened(self, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(BadInput) as refused:
        store.save(7, STATE, world_size=1)
    assert (
        str(refused.value)
        == "output.uri: pvc://models/m: no space left on device while writing the checkpoint of step 7"
    )
    assert [p.name for p in directory.iterdir()] == ["FENCE"]


def test_an_error_that_may_pass_stays_what_it_is(store, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(checkpoint, "_save_state", broken)
    with pytest.raises(OSError, match="Input/output") as error:
        store.save(1, STATE, world_size=1)
    assert not isinstance(error.value, BadInput)


def test_leftovers_of_a_killed_writer_are_cleared(store, directory):
    (directory / ".tmp-step-00000003-g1").mkdir()
    store.take_over()
    assert [p.name for p in directory.iterdir()] == ["FENCE"]


def test_the_manifest_says_who_wrote_it(store, directory):
    store.save(3, STATE, world_size=4)
    manifest = json.loads((directory / "step-00000003/manifest.json").read_text())
    assert (manifest["step"], manifest["generation"], manifest["worldSize"]) == (3, 1, 4)
