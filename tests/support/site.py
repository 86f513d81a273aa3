"""A hub of one server and the leaf node of a site, by the shipped files, and the link between."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from nats_executor.broker.connection import connect
from nats_executor.topology import setup
from tests.support.cable import Cable
from tests.support.certificates import Authority
from tests.support.fixtures import settings_for
from tests.support.nats_server import free_port
from tests.support.shipped import NATS, Made, ShippedServer, here, make_users
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nats_executor.settings import Settings

__all__ = ["QUEUES", "SITE", "Site"]

SITE = "muc"
QUEUES = ("default", "other")


@dataclass
class Site:
    """A hub whose leaf node serves the queue `default` and is connected by a cable.

    Attributes:
        central: users of the hub.
        local: users of the leaf node.
    """

    hub: ShippedServer
    leaf: ShippedServer
    link: Cable
    ca: Authority
    central: Made
    local: Made

    @classmethod
    def build(cls, directory: Path) -> Self:
        """Make users, certificates and configurations; starts nothing."""
        link = Cable(free_port())
        users = directory / "users"
        hubs = f"127.0.0.1:{link.port}"
        done = make_users(users, *QUEUES, f"{SITE}:default", HUBS=hubs)
        assert done.returncode == 0, done.stderr
        hub, leaf = (ShippedServer(directory / name, name=name) for name in ("hub", "leaf"))
        site = cls(hub, leaf, link, Authority(directory), Made(users, ""), Made(users / SITE, ""))
        # One server instead of three.
        text = re.sub(
            r"\ncluster \{.*?\n\}\n", "\n", (NATS / "cluster.conf").read_text(), flags=re.DOTALL
        )
        changes = {
            '# include "leafnodes.conf"': 'include "leafnodes.conf"',
            "client_advertise: $NATS_NAME": f"client_advertise: 127.0.0.1:{hub.port}",
        }
        site.furnish(hub, here(text, changes))
        text = (NATS / "leafnodes.conf").read_text()
        (hub.directory / "leafnodes.conf").write_text(
            here(text, through(link) | site.certificates(hub))
        )
        Made(users, "").give(hub.directory)
        site.furnish(leaf, (NATS / "leaf.conf").read_text())
        for name in ("hub.conf", "users.conf"):
            (leaf.directory / name).write_bytes((users / SITE / name).read_bytes())
        return site

    def furnish(self, server: ShippedServer, text: str) -> None:
        server.directory.mkdir(exist_ok=True)
        data = {'"/data"': f'"{server.directory / "data"}"'} if '"/data"' in text else {}
        addresses = {
            "0.0.0.0:4222": f"127.0.0.1:{server.port}",
            "127.0.0.1:8222": f"127.0.0.1:{server.monitor_port}",
        }
        server.config = here(text, addresses | data | self.certificates(server))

    def certificates(self, server: ShippedServer) -> dict[str, str]:
        shown = self.ca.issue(server.name)
        return {
            "/etc/nats/certs/server.pem": str(shown.certificate_file),
            "/etc/nats/certs/server.key": str(shown.key_file),
            "/etc/nats/certs/ca.pem": str(self.ca.ca_file),
        }

    @contextlib.contextmanager
    def opened(self) -> Iterator[Self]:
        """Start both servers, connected."""
        with self.link:
            try:
                self.hub.start()
                self.leaf.start()
                block_until(self.is_linked, 20, "the leaf node")
                yield self
            finally:
                self.leaf.kill()
                self.hub.kill()

    def is_linked(self) -> bool:
        """Whether both servers see the link."""
        return all(server.monitor("/leafz")["leafnodes"] for server in (self.hub, self.leaf))

    def settings(self, user: str, **options: Any) -> Settings:
        """The settings of a user of the hub."""
        return settings_for(tls(self.hub), **(self.central.options(user) | self.trust() | options))

    def options(self, user: str = "worker-default") -> dict[str, str]:
        """The options of a user of the leaf node, its address among them."""
        return self.local.options(user) | self.trust() | {"servers": tls(self.leaf)}

    def trust(self) -> dict[str, str]:
        return {"tls_ca_file": str(self.ca.ca_file)}

    async def set_up(self) -> None:
        settings = self.settings("admin")
        async with connect(settings, role="test") as admin:
            await admin.ready(10)
            await setup.apply(admin, settings, QUEUES)


def through(link: Cable) -> dict[str, str]:
    """Leave no way but the link: nats-server 2.11 tells a leaf node the hub's address even so."""
    return {
        "0.0.0.0:7422": f"127.0.0.1:{link.target}",
        "no_advertise: true": f'no_advertise: true\n  advertise: "127.0.0.1:{link.port}"',
    }


def tls(server: ShippedServer) -> str:
    return server.url.replace("nats://", "tls://")
