"""Full-size sets: tiny files in the publishers' own layouts, read by the code that reads the real ones.

Only a row's address is replaced. Nothing here leaves the machine.
"""

import dataclasses
import io
import socket
import time
from pathlib import Path

import datasets
import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from course_lib import corpora
from course_lib.corpora import hub
from course_lib.corpora.full_text import articles

pytestmark = pytest.mark.slow  # whole sets are read and searched

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
STREAMS = {
    "smollm_corpus": "cosmopedia-v2/train-0000{}-of-00104.parquet",
    "fineweb_edu": "sample/10BT/00{}_00000.parquet",
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache of `datasets`, and a hub that refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", f"http://127.0.0.1:{closed}")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", tmp_path / "cache" / "downloads")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache" / "hub"))
    monkeypatch.setattr(time, "sleep", lambda _: None)  # the hub's client waits 23 seconds between its attempts
    return tmp_path / "cache"


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """publish(name, {path: table or bytes}, data_files, features): a repository laid out as on the hub."""

    def publish(name, files, data_files, features=""):
        repo, config = tmp_path / name, hub.HUB[name].config
        for path, content in files.items():
            (repo / path).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                (repo / path).write_bytes(content)
            else:
                pq.write_table(content, repo / path)
        info = f"dataset_info:\n- config_name: {config}\n  features:\n{features}" if features else ""
        splits = "".join(f"  - split: {split}\n    path: {path}\n" for split, path in data_files.items())
        card = f"---\n{info}configs:\n- config_name: {config}\n  data_files:\n{splits}---\n"
        (repo / "README.md").write_text(card, "utf-8")
        monkeypatch.setitem(hub.HUB, name, dataclasses.replace(hub.HUB[name], repo=str(repo)))

    return publish


def png(array: np.ndarray) -> dict[str, object]:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def class_label(image: str, label: str, names: tuple[str, ...]) -> str:
    listed = "".join(f"          '{i}': {name}\n" for i, name in enumerate(names))
    return (
        f"  - name: {image}\n    dtype: image\n"
        f"  - name: {label}\n    dtype:\n      class_label:\n        names:\n{listed}"
    )


def pictures(arrays, labels, image, label):
    return pa.table({image: pa.array([png(a) for a in arrays], IMAGE), label: pa.array(labels, pa.int64())})


def publish_cifar(publish, names=corpora.CIFAR_CLASSES, size=32, columns=("img", "label")):
    generator = np.random.default_rng(0)
    arrays = {s: generator.integers(0, 256, (n, size, size, 3), np.uint8) for s, n in (("train", 12), ("test", 5))}
    labels = {s: generator.integers(0, 10, len(a)).tolist() for s, a in arrays.items()}
    files = {f"plain_text/{s}-00000-of-00001.parquet": pictures(arrays[s], labels[s], *columns) for s in arrays}
    publish("cifar10", files, {s: f"plain_text/{s}-*" for s in arrays}, class_label(*columns, names))
    return arrays, labels


@pytest.mark.parametrize("split", ["train", "test"])
def test_cifar10_pixel_by_pixel(publish, split):
    arrays, labels = publish_cifar(publish)
    rows = corpora.cifar10(split, full=True)
    assert rows.features["image"] == datasets.Array3D((32, 32, 3), "uint8")
    assert rows.features["label"].names == list(corpora.CIFAR_CLASSES)
    assert torch.equal(rows[:]["image"], torch.from_numpy(arrays[split]).long())
    assert rows[:]["label"].tolist() == labels[split]
    assert rows.column_names == ["image", "label"]


def test_full_fashion_mnist_is_like_the_shipped_one(publish):
    array = np.random.default_rng(0).integers(0, 256, (11, 28, 28), np.uint8)
    spelt = tuple(n.replace("T-shirt/top", "T - shirt / top") for n in corpora.FASHION_CLASSES)  # as on the hub
    table = pictures(array, [*range(10), 9], "image", "label")
    path = "fashion_mnist/{}-00000-of-00001.parquet"
    files = {path.format(s): table for s in ("train", "test")}
    splits = {s: f"fashion_mnist/{s}-*" for s in ("train", "test")}
    publish("fashion_mnist", files, splits, class_label("image", "label", spelt))
    full, shipped = corpora.fashion_mnist("test", full=True), corpora.fashion_mnist("test")
    assert full.features == shipped.features
    assert full.column_names == shipped.column_names
    assert full.format == shipped.format
    assert torch.equal(full[:]["image"], torch.from_numpy(array).long())
    assert full[:]["label"].tolist() == [*range(10), 9]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"names": corpora.CIFAR_CLASSES[::-1]}, r"classes \['truck', .*wanted are \['airplane'"),
        ({"size": 16}, r"pictures of .*\(16, 16, 3\).*wanted is \(32, 32, 3\)"),
        (
            {"columns": ("image", "label")},
            r"has columns \['image', 'label'\], but \['img', 'label'\] are wanted: \['img'\]",
        ),
    ],
)
def test_another_cifar10_is_refused(publish, changed, words):
    publish_cifar(publish, **changed)
    with pytest.raises(ValueError, match=words):
        corpora.cifar10("test", full=True)


def test_a_label_without_names_is_refused(publish):
    table = pa.table({"img": pa.array([png(np.zeros((32, 32, 3), np.uint8))], IMAGE), "label": [3]})
    publish("cifar10", {"plain_text/test-00000-of-00001.parquet": table}, {"test": "plain_text/test-*"})
    with pytest.raises(ValueError, match="classes None in column 'label'"):
        corpora.cifar10("test", full=True)


LINES = [
    "", " = E = mc2 = \n", "", " First words of Einstein 's formula . \n", "", " = = History = = \n", "", " Old . \n",
    " It says \n", " = 1 kg and c = \n", " which is much . \n", "", " = = = Later = = = \n", "", " New . \n", "", "",
    " = Mars = \n", "", " A planet = a wanderer . \n",
]  # fmt: skip


def test_articles_are_joined_at_titles_only():
    first, second = articles(LINES)
    assert first["name"] == "E = mc2"
    assert second["name"] == "Mars"
    assert first["text"] == "".join(line or "\n" for line in LINES[1:15]).rstrip("\n")
    assert second["text"] == " = Mars = \n\n A planet = a wanderer . "


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ([], []),
        (["", ""], []),
        ([" = A = \n"], ["A"]),
        ([" = A = \n", "", " = B = \n"], ["A", "B"]),
        ([" before . \n", "", " = A = \n", "", " in . \n"], ["", "A"]),
        ([" = A = \n", " text . \n"], [""]),
        ([" text . \n", " = A = \n", ""], [""]),
        ([" = = A = = \n", ""], [""]),
    ],
)
def test_where_articles_start(lines, names):
    found = list(articles(lines))
    assert [a["name"] for a in found] == names
    words = [line.strip() for line in lines if line.strip()]
    assert [line.strip() for a in found for line in a["text"].splitlines() if line.strip()] == words


def test_wikitext103_joins_across_files(publish):
    """The published training split is two files, cut in the middle of an article; the other splits are one each."""
    folder = hub.HUB["wikitext103"].config
    other = {s: ["", f" = Only {s} = \n", "", " Text . \n"] for s in ("validation", "test")}
    files = {
        f"{folder}/train-0000{i}-of-00002.parquet": pa.table({"text": p}) for i, p in enumerate((LINES[:9], LINES[9:]))
    }
    files |= {f"{folder}/{s}-00000-of-00001.parquet": pa.table({"text": lines}) for s, lines in other.items()}
    splits = {s: f"{folder}/{s}-*" for s in ("train", "validation", "test")}
    publish("wikitext103", files, splits, "  - name: text\n    dtype: string\n")
    train = corpora.wikitext103(full=True)
    assert train.to_list() == list(articles(LINES))
    assert {n: f.dtype for n, f in train.features.items()} == {"name": "string", "text": "string"}
    for split in other:
        assert corpora.wikitext103(split, full=True)["name"][:] == [f"Only {split}"]


def publish_stream(publish, name, files, stated=True):
    """FineWeb-Edu's card states no columns for the sample: they are known from the file only."""
    path = STREAMS[name]
    named = {path.format(i): content for i, content in enumerate(files)}
    features = "".join(f"  - name: {c}\n    dtype: string\n" for c in files[0].column_names) if stated else ""
    publish(name, named, {"train": path.split("/00")[0].split("/train")[0] + "/*"}, features)


def web_pages(first, count):
    numbers = range(first, first + count)
    texts = [f"Text {i}." for i in numbers]
    return pa.table({"prompt": ["p"] * count, "text": texts, "url": [f"https://example.org/{i}" for i in numbers]})


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("name", STREAMS)
def test_streams_have_disjoint_splits(publish, name, stated):
    table = web_pages(0, 6000)
    if name == "smollm_corpus":
        table = table.drop_columns("url")
    publish_stream(publish, name, [table], stated)
    train, validation = (getattr(corpora, name)(split, full=True) for split in ("train", "validation"))
    assert isinstance(train, datasets.IterableDataset)
    assert train.column_names == ["name", "text"]
    texts, held_out = ([row["text"] for row in rows] for rows in (train, validation))
    assert sorted(texts + held_out) == sorted(table["text"].to_pylist())
    assert 1 <= len(held_out) <= 18  # 6 are expected
    assert texts == [t for t in table["text"].to_pylist() if t not in set(held_out)]  # in the published order
    first = next(iter(validation))
    assert set(first) == {"name", "text"}
    if name == "fineweb_edu":
        assert first["name"] == "https://example.org/" + first["text"].removeprefix("Text ").removesuffix(".")
    else:
        assert len({row["name"] for row in train}) == len(texts)
    assert [row["text"] for row in getattr(corpora, name)("validation", full=True)] == held_out


@pytest.mark.parametrize("name", STREAMS)
def test_streams_read_only_what_is_taken(publish, name):
    publish_stream(publish, name, [web_pages(0, 50), b"this file is no parquet file"], stated=False)
    rows = getattr(corpora, name)(full=True)
    assert len(list(rows.take(40))) == 40
    with pytest.raises(Exception, match=r"(?i)parquet|magic"):
        list(rows)


def test_workers_share_a_stream(publish):
    """Each published file is a shard; together the workers see every document once."""
    publish_stream(publish, "fineweb_edu", [web_pages(0, 20), web_pages(20, 20), web_pages(40, 20)])
    rows = corpora.fineweb_edu(full=True)
    assert rows.num_shards == 3
    parts = [[row["text"] for row in rows.shard(2, index)] for index in range(2)]
    assert sorted(parts[0] + parts[1]) == sorted(row["text"] for row in rows)
    assert all(parts)
    shared = [text for batch in DataLoader(rows, batch_size=7, num_workers=2) for text in batch["text"]]
    assert sorted(shared) == sorted(parts[0] + parts[1])


@pytest.mark.parametrize("stated", [True, False])
def test_another_stream_is_refused(publish, stated):
    publish_stream(publish, "fineweb_edu", [web_pages(0, 5).drop_columns("url")], stated)
    with pytest.raises(ValueError, match=r"columns \['prompt', 'text'\], but \['text', 'url'\] are wanted: \['url'\]"):
        corpora.fineweb_edu(full=True)


ALL = [*hub.HUB, "livedoor_news"]


@pytest.mark.parametrize("name", ALL)
def test_no_download_without_permission(name, cache):
    load = getattr(corpora, name)
    with pytest.raises(ValueError, match="split='tset'; allowed are 'train'"):
        load("tset", full=True)
    if name != "fashion_mnist":  # ships a part
        with pytest.raises(
            ValueError, match=f"full=False, but {name} is not shipped; full=True downloads it .*licence"
        ):
            load()
    assert not cache.exists()


@pytest.mark.parametrize("name", hub.HUB)
def test_without_a_network(name, cache):
    with pytest.raises(ConnectionError, match=rf"{name} could not be loaded from {hub.HUB[name].repo} ") as caught:
        getattr(corpora, name)(full=True)
    assert "Is there a network" in str(caught.value)
    assert f"What needs no network: {hub.HUB[name].shipped}" in str(caught.value)
    assert caught.value.__cause__ is not None
    assert not [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.mark.parametrize("name", ALL)
def test_offline_by_choice(name, cache, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match=r"HF_HUB_OFFLINE or HF_DATASETS_OFFLINE is set.*unset both"):
        getattr(corpora, name)(full=True)
    assert not [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_a_broken_file_on_the_hub(publish, cache):
    publish_cifar(publish)
    path = Path(hub.HUB["cifar10"].repo) / "plain_text" / "test-00000-of-00001.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConnectionError, match="cifar10 could not be loaded"):
        corpora.cifar10("test", full=True)
    path.write_bytes(whole)
    assert len(corpora.cifar10("test", full=True)) == 5


def test_interrupting_is_not_explained_away():
    with pytest.raises(KeyboardInterrupt), hub.explained(hub.LIVEDOOR, "here"):
        raise KeyboardInterrupt


def test_an_error_without_words_is_named():
    with (
        pytest.raises(ConnectionError, match=r"from here \(TimeoutError: no message\)"),
        hub.explained(hub.LIVEDOOR, "here"),
    ):
        raise TimeoutError
