"""The files of data/: integrity, origin, and the scripts that made them."""

import gzip
import os
import re
import shutil
import struct
import time

import numpy as np
import pytest

import build_data
from builders import fashion, packages
from course_lib import corpora, paths
from tests.conftest import ROOT


def test_damaged_and_missing_files_say_so(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "data", tmp_path / "data")
    monkeypatch.setattr(paths, "shipped", lambda folder: tmp_path / folder)
    file = tmp_path / "data" / "fashion_mnist.npz"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1000])
    with pytest.raises(ValueError, match=r"data/fashion_mnist\.npz is damaged.*git checkout"):
        corpora.fashion_mnist()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match="is damaged"):
        corpora.fashion_mnist()
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"data/fashion_mnist\.npz is missing.*make data"):
        corpora.fashion_mnist()
    with pytest.raises(ValueError, match=r"name='other\.npz' is not listed"):
        paths.verified("other.npz")
    with pytest.raises(ValueError, match="split='valid'"):
        corpora.fashion_mnist("valid")
    with pytest.raises(ValueError, match="name=None is not listed"):
        paths.verified(None)
    sums = tmp_path / "data" / "SHA256SUMS"
    sums.write_text(sums.read_text("utf-8")[:-90], "utf-8")  # cut within a line
    with pytest.raises(ValueError, match=r"data/SHA256SUMS is damaged: restore it with `git checkout"):
        corpora.capitals()


def test_every_file_is_listed_and_named_in_the_sources():
    listed = paths.checksums()
    sources = (ROOT / "data" / "SOURCES.md").read_text("utf-8")
    kept = {p.relative_to(ROOT / "data").as_posix() for p in (ROOT / "data").rglob("*") if p.is_file()}
    unlisted = {name for name in kept - set(listed) if not name.startswith("licences/")}
    assert unlisted == {"README.md", "SHA256SUMS", "SOURCES.md"}
    for name in kept:
        if name.startswith("licences/"):
            assert f"`{name}`" in sources, f"{name} belongs to nothing in SOURCES.md"
    for name, digest in listed.items():
        assert paths.sha256(ROOT / "data" / name) == digest, name
        assert name in sources, f"{name} has no origin in SOURCES.md"
    assert sum((ROOT / "data" / n).stat().st_size for n in listed if not n.startswith("weights/")) < 20e6


def test_the_builder_reads_idx_and_takes_the_first_of_each_class(tmp_path):
    pictures = np.arange(40 * 6, dtype=np.uint8).reshape(40, 2, 3)
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(struct.pack(">HBB3I", 0, 8, 3, 40, 2, 3) + pictures.tobytes()))
    assert np.array_equal(fashion.read_idx(path), pictures)
    labels = np.arange(40) % 10
    images, kept = fashion.first_per_class(pictures, labels, 2)
    assert np.array_equal(images, pictures[:20])
    assert np.array_equal(kept, labels[:20])


def test_whole_or_nothing(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    with paths.whole_or_nothing(path) as temporary:
        temporary.write_text("one")
        assert not path.exists()

    def fail_half_way():
        with paths.whole_or_nothing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("cut off")

    with pytest.raises(RuntimeError, match="cut off"):
        fail_half_way()
    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]


def test_two_writers_of_one_file(tmp_path):
    with paths.whole_or_nothing(tmp_path / "x") as one, paths.whole_or_nothing(tmp_path / "x") as two:
        one.write_text("one")
        two.write_text("two")
    assert (tmp_path / "x").read_text() == "one"  # the last rename stands, and it is whole
    assert len(list(tmp_path.iterdir())) == 1


def test_every_package_is_pinned_and_named_in_the_sources():
    """A digest in a builder is in SOURCES.md, and the other way round."""
    code = "".join(p.read_text("utf-8") for p in (ROOT / "scripts" / "builders").glob("*.py"))
    pinned = set(re.findall(r"[0-9a-f]{64}", code))
    named = set(re.findall(r"[0-9a-f]{64}", (ROOT / "data" / "SOURCES.md").read_text("utf-8")))
    assert pinned == named


def test_a_builder_changes_its_own_lines_only(tmp_path, monkeypatch):
    """A file that was damaged meanwhile stays damaged: it is not listed anew."""
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  b.csv\n", "utf-8")
    (tmp_path / "a.csv").write_text("a", "utf-8")
    (tmp_path / "b.csv").write_text("b", "utf-8")
    monkeypatch.setattr(build_data, "shipped", lambda _: tmp_path)
    monkeypatch.setattr(paths, "shipped", lambda _: tmp_path)
    build_data.record([tmp_path / "a.csv"])
    assert paths.checksums() == {"a.csv": paths.sha256(tmp_path / "a.csv"), "b.csv": "0" * 64}


def test_a_package_with_other_bytes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(packages.subprocess, "run", lambda *_, **__: (tmp_path / "x-1.tgz").write_bytes(b"other"))
    with pytest.raises(ValueError, match=r"x-1\.tgz has SHA-256 [0-9a-f]{64}, not the expected 0000"):
        packages.npm("x", "1", "0" * 64, tmp_path, "a")


def test_what_a_killed_writer_left_is_removed_after_an_hour_and_not_before(tmp_path):
    """A neighbour that is writing right now keeps its file."""
    left = {age: tmp_path / f".x.{age}-0.partial" for age in (5, 3000, 4000)}
    for age, path in left.items():
        path.write_text("half")
        os.utime(path, (time.time() - age,) * 2)
    (tmp_path / ".y.1-0.partial").write_text("another file's")
    os.utime(tmp_path / ".y.1-0.partial", (0, 0))
    with paths.whole_or_nothing(tmp_path / "x") as temporary:
        temporary.write_text("whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".x.3000-0.partial", ".x.5-0.partial", ".y.1-0.partial", "x"]


def test_the_copy_in_a_wheel_comes_before_a_neighbour_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "_PACKAGE", tmp_path / "course_lib")
    (tmp_path / "data").mkdir()
    assert paths.shipped("data") == tmp_path / "data"
    inside = tmp_path / "course_lib" / "_bundled" / "data"
    inside.mkdir(parents=True)
    assert paths.shipped("data") == inside
    with pytest.raises(FileNotFoundError, match="the course's folder 'images' is neither at"):
        paths.shipped("images")


@pytest.mark.parametrize(("name", "target"), [("weights/a.safetensors", "make weights"), ("b.csv", "make data")])
def test_the_advice_names_the_command_that_makes_the_file(tmp_path, monkeypatch, name, target):
    monkeypatch.setattr(paths, "shipped", lambda _: tmp_path)
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  {name}\n", "utf-8")
    with pytest.raises(FileNotFoundError, match=f"git checkout -- data/{name}`, or make it again with `{target}`"):
        paths.verified(name)
