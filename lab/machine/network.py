"""The lab's network: a node and its pods as network namespaces on one bridge, with no way out.

With direct/nat.py the only module that imports pyroute2, and without its NetNS: that forks the lab, and a signal would
unwind the fork's copy of the lab's stack and remove everything. Nothing is added to the namespace the lab is started in
and no namespace gets a default route, so no packet of the lab can leave it. Namespaces are named by a prefix, so
leftovers can be found.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from pyroute2 import IPRoute, netns
from pyroute2.netlink.exceptions import NetlinkError

RUN = Path("/run/netns")
NODE_ADDRESS = "10.88.0.1"
PREFIX_LENGTH = 24
FIRST_POD = 11  # the first pod is 10.88.0.11
MAX_PODS = 200
BRIDGE = "pods"


def node_namespace(lab: str) -> str:
    return f"{lab}-node"


def pod_namespace(lab: str, index: int) -> str:
    return f"{lab}-pod-{index}"


def pod_address(index: int) -> str:
    return NODE_ADDRESS.rsplit(".", 1)[0] + f".{FIRST_POD + index}"


def build(lab: str, pods: int) -> None:
    """Makes the node's namespace with its bridge and one namespace for each pod. Raises OSError; `remove` undoes it."""
    if not 0 < pods <= MAX_PODS:
        raise ValueError(f"got {pods} pods, expected 1 to {MAX_PODS}")
    names = [node_namespace(lab), *(pod_namespace(lab, index) for index in range(pods))]
    for name in names:
        _ip("netns", "add", name)
    try:
        _connect(*names)
    except NetlinkError as error:
        raise OSError(error.code, f"this kernel refuses the lab's network: {error}") from error


def remove(lab: str) -> list[str]:
    """Removes every namespace of a lab, whoever left it; interfaces go with them. Returns the names."""
    names = leftovers(lab)
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            netns.remove(name)
    return names


def leftovers(lab: str) -> list[str]:
    """Names of a lab's namespaces that exist."""
    if not RUN.is_dir():
        return []
    wanted = (node_namespace(lab), f"{lab}-pod-")
    return sorted(name for name in os.listdir(RUN) if name == wanted[0] or name.startswith(wanted[1]))


def enter_command(namespace: str, command: Sequence[str]) -> list[str]:
    """How to start a command inside. Not by `ip netns exec`: that mounts /sys anew, where the pins and cgroups are."""
    return ["nsenter", f"--net={RUN / namespace}", "--", *command]


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """This thread's new sockets belong to the namespace; threads started inside inherit that."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        netns.setns(namespace, flags=0)  # the default would make one
        try:
            yield
        finally:
            netns.setns(home)
    finally:
        with contextlib.suppress(OSError):  # some versions of setns close what they are given
            os.close(home)


def permitted() -> str | None:
    """Why namespaces cannot be made here, or None."""
    if os.geteuid() != 0:
        return "not root"
    for needed in ("ip", "nsenter"):
        if shutil.which(needed) is None:
            return f"no program '{needed}'"
    try:
        probe = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return f"no network namespaces in this kernel ({errno.errorcode[error.errno or 0]})"
    os.close(probe)
    return None


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(errno.EPERM, f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def _connect(node: str, *pods: str) -> None:
    """Each pod's eth0 on the node's bridge."""
    with inside(node), IPRoute() as link:
        _up(link, "lo")
        link.link("add", ifname=BRIDGE, kind="bridge", br_stp_state=0, br_forward_delay=0)
        link.addr("add", index=_index(link, BRIDGE), address=NODE_ADDRESS, prefixlen=PREFIX_LENGTH)
        _up(link, BRIDGE)
        for index, pod in enumerate(pods):
            outer = f"veth{index}"
            link.link("add", ifname=outer, kind="veth", peer={"ifname": "eth0", "net_ns_fd": pod})
            link.link("set", index=_index(link, outer), master=_index(link, BRIDGE), state="up")
    for index, pod in enumerate(pods):
        with inside(pod), IPRoute() as link:
            _up(link, "lo")
            link.addr("add", index=_index(link, "eth0"), address=pod_address(index), prefixlen=PREFIX_LENGTH)
            _up(link, "eth0")


def _up(link: IPRoute, name: str) -> None:
    link.link("set", index=_index(link, name), state="up")


def _index(link: IPRoute, name: str) -> int:
    found: list[int] = link.link_lookup(ifname=name)
    if not found:
        raise OSError(errno.ENODEV, f"the lab's interface {name} is not there")
    return found[0]
