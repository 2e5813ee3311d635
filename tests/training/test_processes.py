"""Training in processes of its own: killed and resumed, and two that share the work."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from course_lib.corpora import shuffled_batches
from course_lib.training import classification_loss, train
from course_lib.training.checkpoint import CHECKPOINT
from tests.training.toy import data, fit, network, same

WORKER = Path(__file__).parent / "worker.py"


def _environment():
    root = str(WORKER.parents[2])
    return os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": str(torch.get_num_threads())}


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["step", "write"])
def test_killed_and_resumed_equals_unbroken(tmp_path, moment):
    """SIGKILL between steps, and in the middle of writing a checkpoint."""
    unbroken = network()
    whole = fit(unbroken)
    command = [sys.executable, str(WORKER), str(tmp_path)]
    killed = subprocess.run([*command, moment], env=_environment(), capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (tmp_path / CHECKPOINT).exists()
    for left in tmp_path.glob(".*.partial"):  # an hour later, the next write cleans up
        os.utime(left, (0, 0))
    subprocess.run([*command, "never"], env=_environment(), check=True)
    model = network()
    again = fit(model, checkpoint_dir=tmp_path)  # nothing left to do: it loads what the killed run became
    assert same(unbroken, model)
    assert again.records == whole.records
    assert [p.name for p in tmp_path.iterdir()] == [CHECKPOINT]  # nothing half-written is left behind


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    """The same call under torchrun with gloo: each process takes half of every batch."""
    single = network().double()
    single[2].p = 0.0  # dropout draws per process
    x, y = data()
    optimizer = torch.optim.AdamW(single.parameters(), lr=0.01)
    batches = shuffled_batches((x.double(), y), 16, 3)
    whole = train(single, batches, classification_loss, optimizer, steps=12, seed=4, progress=False)
    environment = _environment() | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*command, str(WORKER), str(tmp_path), "two"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    weights = load_file(tmp_path / "weights.safetensors")
    for name, tensor in single.state_dict().items():
        assert torch.allclose(weights[name], tensor, atol=1e-6), name  # the loss is computed in float32
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["processes"] == 2
    assert facts["losses"] == pytest.approx(whole.column("loss"), abs=1e-6)
