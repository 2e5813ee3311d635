"""Livedoor News: a tiny archive in the publisher's layout, from a server on this machine."""

import dataclasses
import http.server
import io
import socket
import tarfile
import threading

import datasets
import pytest

from course_lib import corpora
from course_lib.corpora import hub

N = 180


def article(number: int, body: str = "本文。") -> bytes:
    head = f"http://news.livedoor.com/article/detail/{number}/\n2012-09-0{number % 9 + 1}T10:00:00+0900\n題 {number}\n"
    return f"{head}{body} {number}\n\n二行目。\n".encode()


def add(tar, name, content=b"", **fields):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(content))


def packed(*, unsafe=False, first=None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        add(tar, "text", type=tarfile.DIRTYPE)
        add(tar, "text/CHANGES.txt", b"2014-02-09\n")
        add(tar, "text/README.txt", b"http://readme\n\n\n\n")
        for category in corpora.LIVEDOOR_CLASSES:
            add(tar, f"text/{category}", type=tarfile.DIRTYPE)
            add(tar, f"text/{category}/LICENSE.txt", "http://licence\n\n\n表示\n".encode())
        if unsafe:
            add(tar, "../../text/peachy/peachy-1.txt", article(1))
            add(tar, "/text/peachy/peachy-2.txt", article(2))
            add(tar, "text/peachy/peachy-3.txt", type=tarfile.SYMTYPE, linkname="/etc/passwd")
            add(tar, "text/peachy/peachy-4.txt", type=tarfile.LNKTYPE, linkname="text/README.txt")
        for number in range(N):
            category = corpora.LIVEDOOR_CLASSES[number % 9]
            content = first if first is not None and number == 0 else article(number)
            add(tar, f"text/{category}/{category}-{4000000 + number}.txt", content)
    return buffer.getvalue()


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` as a file; hangs up after `sent` bytes of it, if that is set."""

    content: bytes
    sent: int | None = None
    length = True
    requests = 0


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests += 1
        self.send_response(200)
        if self.server.length:
            self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content[: self.server.sent])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", tmp_path / "cache")
    server = Server(("127.0.0.1", 0), Handler)
    server.content = packed()
    url = f"http://127.0.0.1:{server.server_port}/download/ldcc-20140209.tar.gz"
    monkeypatch.setattr(hub, "LIVEDOOR", dataclasses.replace(hub.LIVEDOOR, url=url, documents=N))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def files(tmp_path):
    """files(): the names of all files below the cache."""
    return lambda: [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_articles_and_splits(server, files):
    splits = {split: corpora.livedoor_news(split, full=True) for split in ("train", "validation", "test")}
    assert server.requests == 1  # the second call reads the file that the first one kept
    assert files() == ["ldcc-20140209.tar.gz"]
    numbers = {s: [int(row["name"].removeprefix("題 ")) for row in rows] for s, rows in splits.items()}
    assert sorted(n for part in numbers.values() for n in part) == list(
        range(N)
    )  # each in one split, licences and README in none
    assert all(N * 0.03 < len(numbers[s]) < N * 0.2 for s in ("validation", "test"))
    row = splits["train"][3]
    number = numbers["train"][3]
    assert row == {
        "name": f"題 {number}",
        "text": f"本文。 {number}\n\n二行目。",
        "label": number % 9,
        "url": f"http://news.livedoor.com/article/detail/{number}/",
        "date": f"2012-09-0{number % 9 + 1}T10:00:00+0900",
    }
    assert splits["test"].features["label"].names == list(corpora.LIVEDOOR_CLASSES)
    assert corpora.livedoor_news("test", full=True)["name"][:] == splits["test"]["name"][:]


def test_an_article_without_a_body(server):
    server.content = packed(first=b"http://news.livedoor.com/article/detail/0/\n2012-09-01T10:00:00+0900\n\xe9\xa1\x8c")
    rows = [row for s in ("train", "validation", "test") for row in corpora.livedoor_news(s, full=True)]
    assert {"name": "題", "text": ""}.items() <= next(row for row in rows if not row["text"]).items()


@pytest.mark.parametrize("length", [True, False])
def test_cut_off_half_way(server, files, length):
    server.length, server.sent = length, len(server.content) // 2
    if length:
        words = f"livedoor_news could not be loaded from http.*after {server.sent:,} of {len(server.content):,} bytes"
        with pytest.raises(ConnectionError, match=words) as caught:
            corpora.livedoor_news(full=True)
        assert "try again later" in str(caught.value)
    else:  # nobody knows how long it should have been, but half an archive does not open
        with pytest.raises(ValueError, match="cannot be read"):
            corpora.livedoor_news(full=True)
    assert files() == []
    server.sent = None
    assert len(corpora.livedoor_news(full=True)) > N / 2
    assert files() == ["ldcc-20140209.tar.gz"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html>Please log in to the hotel's network.</html>", "cannot be read"),
        (packed()[:-200], "cannot be read"),
        (packed(first=b"no address\n\n\n\n"), "does not start with its address, but with 'no address'"),
        (packed(first=b"\xff\xfe"), "cannot be read"),
    ],
)
def test_another_file_is_not_kept(server, files, content, words):
    server.content = content
    with pytest.raises(ValueError, match=words):
        corpora.livedoor_news(full=True)
    assert files() == []


def test_a_changed_archive_is_not_kept(server, files, monkeypatch):
    monkeypatch.setattr(hub, "LIVEDOOR", dataclasses.replace(hub.LIVEDOOR, documents=7367))
    with pytest.raises(ValueError, match="has 180 articles, not 7,367"):
        corpora.livedoor_news(full=True)
    assert files() == []


def test_unsafe_members_are_left_alone(server, files, tmp_path):
    server.content = packed(unsafe=True)
    before = {path for path in tmp_path.parent.rglob("*") if path.name.startswith("peachy")}
    rows = [row for s in ("train", "validation", "test") for row in corpora.livedoor_news(s, full=True)]
    assert len(rows) == N
    assert files() == ["ldcc-20140209.tar.gz"]
    assert {path for path in tmp_path.parent.rglob("*") if path.name.startswith("peachy")} == before


def test_a_file_damaged_later(server, files, tmp_path):
    corpora.livedoor_news(full=True)
    (path,) = (p for p in (tmp_path / "cache").rglob("*") if p.is_file())
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=f"delete {path}"):
        corpora.livedoor_news(full=True)


def test_refused_connection(server, files, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as other:
        closed = other.getsockname()[1]
    url = f"http://127.0.0.1:{closed}/ldcc-20140209.tar.gz"
    monkeypatch.setattr(hub, "LIVEDOOR", dataclasses.replace(hub.LIVEDOOR, url=url))
    with pytest.raises(ConnectionError, match=r"Is there a network.*What needs no network: neko") as caught:
        corpora.livedoor_news(full=True)
    assert isinstance(caught.value.__cause__, OSError)
    assert files() == []


def test_offline_reads_what_is_there(server, monkeypatch):
    rows = corpora.livedoor_news(full=True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    assert corpora.livedoor_news(full=True)["name"][:] == rows["name"][:]
    assert server.requests == 1


def test_offline_asks_nobody(server, files, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match="unset both"):
        corpora.livedoor_news(full=True)
    assert server.requests == 0
    assert files() == []
