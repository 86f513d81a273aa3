"""A network namespace that reaches two addresses of this machine, and that nothing reaches."""

from __future__ import annotations

import contextlib
import random
import secrets
import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.support.require import require

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FarNetwork", "require_namespaces"]

# Linux's states of a TCP socket, as /proc/net/tcp numbers them.
LISTENING = "0A"
CONNECT_SECONDS = 0.5
TOOLS = ("ip", "iptables", "nsenter")


def require_namespaces() -> None:
    """Skip, or fail in CI, where no network can be made."""
    lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
    require(not lacking, f"needs {' and '.join(lacking)}: apt-get install iproute2 iptables")
    name = f"probe-{secrets.token_hex(4)}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode == 0:
        run("ip", "netns", "delete", name)
    require(made.returncode == 0, f"needs root and network namespaces: {made.stderr.strip()}")


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


class FarNetwork:
    """The namespace and its one cable, which end with the context whatever happened.

    Its only routes are to `nats` and `api`, which are addresses of this side. It drops whatever
    wants to connect to `far`, its own address, as a site behind a firewall does.
    """

    def __init__(self) -> None:
        number = secrets.token_hex(4)
        self.name = f"far-{number}"
        self.near_end, self.far_end = f"near{number}", f"far{number}"
        # Of the range for tests of networks, so that no host has it here.
        block = f"198.{random.randint(18, 19)}.{random.randint(1, 254)}"  # noqa: S311 - no secret
        self.nats, self.api, self.far = (f"{block}.{last}" for last in (1, 2, 3))

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as exits:
            exits.callback(self.remove)
            run("ip", "netns", "add", self.name)
            run(*f"ip link add {self.near_end} type veth peer {self.far_end}".split())
            run(*f"ip link set {self.far_end} netns {self.name}".split())
            for address in (self.nats, self.api):
                run(*f"ip address add {address}/32 dev {self.near_end}".split())
            self.within("ip", "link", "set", "lo", "up")
            self.within(*f"ip address add {self.far}/32 dev {self.far_end}".split())
            # No address of IPv6, which iptables does not guard.
            self.within(*f"ip link set {self.far_end} addrgenmode none up".split())
            for address in (self.nats, self.api):
                self.within(*f"ip route add {address}/32 dev {self.far_end}".split())
            # Without any memory of connections: all that begins one is dropped.
            self.within("iptables", "-P", "INPUT", "DROP")
            self.within("iptables", "-A", "INPUT", "-i", "lo", "-j", "ACCEPT")
            self.within("iptables", "-A", "INPUT", "-p", "tcp", "!", "--syn", "-j", "ACCEPT")
            self.connect()
            exits.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Take away what is there; the cable goes with either of its ends."""
        for command in (f"ip link delete {self.near_end}", f"ip netns delete {self.name}"):
            subprocess.run(command.split(), capture_output=True, check=False)

    @property
    def prefix(self) -> Sequence[str]:
        """What to put in front of a command that is to run there."""
        return ("nsenter", f"--net=/run/netns/{self.name}")

    def within(self, *command: str) -> str:
        return run(*self.prefix, *command)

    def connect(self) -> None:
        """Plug the cable in."""
        run(*f"ip link set {self.near_end} up".split())
        run(*f"ip route replace {self.far}/32 dev {self.near_end}".split())

    def disconnect(self) -> None:
        """Pull the cable out: what is sent is lost, and no program is told."""
        run(*f"ip link set {self.near_end} down".split())

    # What it is like

    def routes(self) -> set[str]:
        """Where its processes can send to, itself apart."""
        shown = self.within("ip", "-4", "route") + self.within("ip", "-6", "route")
        return {line.split()[0] for line in shown.splitlines()}

    def holds(self, pid: int) -> bool:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino == self.inode()

    def inode(self) -> int:
        return Path(f"/run/netns/{self.name}").stat().st_ino

    def peers(self, pid: int) -> set[str]:
        """The addresses that TCP connections of its processes are with."""
        return {
            address(row[2]) for row in sockets(pid) if row[3] != LISTENING and not is_local(row[1])
        }

    def listening(self, pid: int) -> list[str]:
        """Its ports that something listens on, for others than itself."""
        return [row[1] for row in sockets(pid) if row[3] == LISTENING and not is_local(row[1])]

    def lets_in(self, port: int) -> bool:
        """Whether this side can connect to one of its ports, from an address that it knows."""
        here = (self.nats, 0)
        try:
            with socket.create_connection((self.far, port), CONNECT_SECONDS, source_address=here):
                return True
        except OSError:
            return False


def sockets(pid: int) -> list[list[str]]:
    """The rows of /proc/net/tcp in a process's namespace."""
    return [
        line.split()
        for version in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{version}").read_text().splitlines()[1:]
    ]


def address(text: str) -> str:
    """Read `0100007F:1F90` or its longer form of IPv6."""
    digits = text.partition(":")[0][-8:]
    return socket.inet_ntoa(bytes.fromhex(digits)[::-1])


def is_local(text: str) -> bool:
    return address(text).startswith("127.") or text.startswith("0" * 31 + "1:")
