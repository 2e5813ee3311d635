"""Cut a Python off from the network: with this folder on PYTHONPATH, only loopback can be reached.

Python imports `sitecustomize` when it starts, and so does every Jupyter kernel started from it. The hook sees what
goes through Python's `socket`; a compiled library's own sockets (ZeroMQ, which kernels need) do not pass here.
"""

import os
import socket
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from ipaddress import ip_address
from typing import Any

SENDING = {"socket.connect", "socket.sendto", "socket.sendmsg"}
NAMING = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"}


class OfflineError(OSError):
    """The program wanted to reach another machine."""


def is_loopback(host: Any) -> bool:
    """Whether `host` (a name or an address, as text or bytes) can only mean this machine."""
    if isinstance(host, bytes | bytearray):
        host = host.decode("utf-8", "replace")
    if host is None or host == "" or str(host).lower().rstrip(".") == "localhost":
        return True
    try:
        address = ip_address(str(host).split("%")[0])  # without an IPv6 zone
    except ValueError:
        return False  # a name
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook: raise OfflineError where a host other than loopback is looked up, connected to or sent to."""
    if event in SENDING:
        sock, target = arguments
        # sendmsg on a socket that is already connected names no target.
        if sock.family == socket.AF_UNIX or target is None:
            return
        host = target[0] if sock.family in (socket.AF_INET, socket.AF_INET6) else repr(target)
    elif event in NAMING:
        host = arguments[0][0] if event == "socket.getnameinfo" else arguments[0]
    else:
        return
    if not is_loopback(host):
        raise OfflineError(f"this run is offline: {event} to {host!r} is refused, only loopback is allowed")


def run_hidden_namesake() -> None:
    """Run the `sitecustomize` that this one hides: the next on sys.path, if there is one."""
    here = os.path.dirname(os.path.realpath(__file__))
    folders = [os.path.realpath(folder) for folder in sys.path]
    later = sys.path[folders.index(here) + 1 :] if here in folders else sys.path
    spec = PathFinder.find_spec("sitecustomize", [folder for folder in later if os.path.realpath(folder) != here])
    if spec is not None and spec.loader is not None and spec.origin is not None:
        spec.loader.exec_module(module_from_spec(spec))


for variable in [name for name in os.environ if name.lower() in {"http_proxy", "https_proxy", "all_proxy"}]:
    del os.environ[variable]  # a proxy on this machine would lead out
sys.addaudithook(refuse_network)
run_hidden_namesake()
