"""Run by test_processes.py in processes of its own: train until it kills itself, or with another."""

import json
import os
import signal
import sys
from pathlib import Path

import safetensors.torch
import torch

from course_lib.corpora import shuffled_batches
from course_lib.runtime import processes
from course_lib.training import checkpoint, classification_loss, train
from tests.training.toy import data, fit, network


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_run(folder: Path, moment: str) -> None:
    if moment == "write":
        whole = checkpoint.save_file

        def half(tensors, path, metadata):
            whole(tensors, path, metadata=metadata)
            if json.loads(metadata["progress"])["step"] == 10:  # the second checkpoint gets only half-way
                Path(path).write_bytes(Path(path).read_bytes()[:100])
                kill()

        checkpoint.save_file = half
    on_step = (lambda step, model: step == 13 and kill()) if moment == "step" else None
    fit(network(), checkpoint_dir=folder, checkpoint_every=5, on_step=on_step)


def shared_run(folder: Path) -> None:
    x, y = data()
    batches = shuffled_batches((x.double(), y), 16, 3)
    for stop_at in (5, None):  # broken off, and taken up again
        model = network().double()
        model[2].p = 0.0
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        history = train(
            model, batches, classification_loss, optimizer, steps=12, seed=4, progress=False, stop_at=stop_at,
            checkpoint_dir=folder / "run",
        )  # fmt: skip
    state = processes()
    if state.is_main_process:
        safetensors.torch.save_file(model.state_dict(), folder / "weights.safetensors")
        facts = {"processes": state.num_processes, "losses": history.column("loss")}
        (folder / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    folder, moment = Path(sys.argv[1]), sys.argv[2]
    if moment == "two":
        shared_run(folder)
    else:
        killed_run(folder, moment)
