"""The files of `deploy/nats` on a test's own servers: users, configurations, addresses of here."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.nats_server import NatsServer, server_binary
from tests.tools.boundaries import ROOT

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["INCLUDED", "NATS", "Made", "ShippedServer", "here", "make_users"]

NATS = ROOT / "deploy/nats"
INCLUDED = ("users.conf", "workers.conf", "limits.conf")


def make_users(
    *args: object, airflow: str = "tests.support.quick_airflow", **environment: str
) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [str(NATS / "make-users"), *map(str, args)],
        env=os.environ
        | {"AIRFLOW": f"{sys.executable} -m {airflow}", "PYTHONPATH": path}
        | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@dataclass(frozen=True)
class Made:
    """What the script left and said; of a team, whose directory it is then, `team` in capitals."""

    directory: Path
    output: str
    team: str = ""

    def options(self, user: str) -> dict[str, str]:
        """The settings of a user, by the names of the options."""
        lines = (self.directory / f"{user}.env").read_text().splitlines()
        prefix = f"AIRFLOW__{self.team}___NATS_" if self.team else "AIRFLOW__NATS_"
        pairs = (line.removeprefix(f"{prefix}EXECUTOR__").split("=", 1) for line in lines)
        return {name.lower(): value for name, value in pairs}

    def give(self, directory: Path) -> None:
        """Copy to a server what it includes."""
        for name in INCLUDED:
            (directory / name).write_bytes((self.directory / name).read_bytes())


class ShippedServer(NatsServer):
    """One that reads a configuration of ours as a whole."""

    def launch(self) -> None:
        path = self.directory / "nats.conf"
        path.write_text(self.config)
        with (self.directory / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [server_binary(), "-c", str(path)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"NATS_NAME": self.name},
            )


def here(text: str, changes: dict[str, str]) -> str:
    """Change addresses and paths, each of which has to be there."""
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text
