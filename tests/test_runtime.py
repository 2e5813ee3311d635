"""Lazy import, set-up, shown source, trained weights."""

import re
import subprocess
import sys

import pytest
import torch

import course_lib
from course_lib import norms, pretrained
from course_lib.corpora import fashion_tensors
from course_lib.experiments import load
from course_lib.runtime import setup
from course_lib.source import show_source
from course_lib.training import classification_loss


def test_importing_the_package_is_cheap():
    code = (
        "import sys, time; start = time.process_time(); import course_lib; "
        "seconds = time.process_time() - start; dir(course_lib); "
        "assert not {'torch', 'numpy', 'matplotlib', 'accelerate'} & set(sys.modules); print(seconds)"
    )
    times = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(3)]
    assert min(times) < 0.1


def test_public_names_resolve():
    assert course_lib.setup is setup
    assert set(dir(course_lib)) >= {"setup", "train", "show_source"}
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = course_lib.nothing


def test_setup_seeds_and_prints_one_line(capsys, monkeypatch):
    monkeypatch.delenv("COURSE_PROFILE", raising=False)
    numbers = []
    for _ in range(2):
        run = setup(seed=3)
        numbers.append(torch.rand(2))
    assert torch.equal(*numbers)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0] == lines[1]
    assert re.search(r"torch \d.*device \w+.*profile \w+ · seed 3", lines[0])
    assert run.device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert run.pick(cpu=1, gpu=2) == (2 if torch.cuda.is_available() else 1)


def test_the_profile_can_be_chosen(monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "gpu")
    run = setup()
    assert run.profile == "gpu"
    assert run.pick(cpu=1, gpu=2) == 2
    assert setup(profile="cpu").profile == "cpu"
    monkeypatch.setenv("COURSE_PROFILE", "tpu")
    with pytest.raises(ValueError, match="profile='tpu'"):
        setup()
    with pytest.raises(ValueError, match="seed=-1"):
        setup(seed=-1)


def test_show_source_shows_the_librarys_own_code():
    shown = show_source(norms.layer_norm).data
    assert shown.startswith("`course_lib/norms.py`")
    assert "torch.rsqrt(variance + eps)" in shown
    with pytest.raises(ValueError, match="no Python source"):
        show_source(3)


def test_pretrained_weights_are_those_of_the_recorded_run():
    model = pretrained.load("residual-mlp")
    made = pretrained.origin("residual-mlp")
    (run,) = (a for a in load(made.study)["arms"] if (a["name"], a["seed"]) == (made.arm, made.seed))
    images, labels = fashion_tensors("test")
    with torch.no_grad():
        _, metrics = classification_loss(model, (images, labels))
    assert metrics["accuracy"].item() == pytest.approx(run["metrics"]["test_accuracy"], abs=2e-3)
    assert metrics["accuracy"].item() > run["metrics"]["untrained_accuracy"] + 0.7
    assert sum(p.numel() for p in model.parameters()) == run["params"]
    assert next(model.parameters()).dtype == torch.float32
    assert not model.training


def test_weights_survive_saving(tmp_path, monkeypatch):
    model = pretrained.load("residual-mlp")
    path = pretrained.save("residual-mlp", model, tmp_path / "weights")
    assert path.stat().st_size < 8e6
    monkeypatch.setattr(pretrained, "verified", lambda name: tmp_path / name)
    again = pretrained.load("residual-mlp")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    with pytest.raises(ValueError, match="name='gpt-9'; allowed are 'residual-mlp'"):
        pretrained.load("gpt-9")


def test_another_seed_gives_other_numbers():
    setup(seed=1)
    one = torch.rand(3)
    setup(seed=2)
    assert not torch.equal(torch.rand(3), one)
    assert setup().mixed_precision == "no" or torch.cuda.is_available()
