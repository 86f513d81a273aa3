"""Keeps the worker's login for NATS from the processes that run workloads.

Their environment comes from the worker's, and Airflow's configuration from that and from
airflow.cfg. An empty value in the environment goes before one in the file, so the processes that a
task starts by exec find none either, as long as they do not read the file themselves.
"""

from __future__ import annotations

import re
from configparser import RawConfigParser
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from nats_executor.options import OPTIONS, SECTION
from nats_executor.settings import without_userinfo

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from nats_executor.settings import Settings

__all__ = ["environment_without_login", "hide_login"]

LOGIN = tuple(option.name for option in OPTIONS if option.is_login)
# As Airflow reads an option from elsewhere.
SOURCES = ("", "_cmd", "_secret")
# Of a team: AIRFLOW__<TEAM>___NATS_EXECUTOR__PASSWORD, and `[<team>=nats_executor]` in the file.
VARIABLE = rf"AIRFLOW__(.+___)?{SECTION.upper()}__"
OF_LOGIN = re.compile(rf"{VARIABLE}({'|'.join(LOGIN)})({'|'.join(SOURCES)})", re.IGNORECASE)
# A shorter one is no secret, and may well be the value of USER.
SECRET_CHARACTERS = 8
OF_SERVERS = re.compile(rf"{VARIABLE}servers", re.IGNORECASE)


def environment_without_login(
    environment: Mapping[str, str], settings: Settings, *, team: str | None
) -> dict[str, str]:
    """Return the environment of a worker and everything below it.

    Args:
        settings: the worker's; a variable that is a secret in them goes, whatever its name.
        team: whose settings they are.
    """
    secrets = {text for text in secrets_of(settings) if len(text) >= SECRET_CHARACTERS}
    kept = {
        name: bare(value) if OF_SERVERS.fullmatch(name) else value
        for name, value in environment.items()
        if not OF_LOGIN.fullmatch(name) and value.strip() not in secrets
    }
    whose = f"{team.upper()}___" if team else ""
    own = f"AIRFLOW__{whose}{SECTION.upper()}__"
    kept |= {f"AIRFLOW__{SECTION.upper()}__{option.upper()}": "" for option in LOGIN}
    kept |= {f"{own}{option.upper()}": "" for option in LOGIN}
    if any("@" in server for server in settings.servers):
        kept[f"{own}SERVERS"] = ",".join(map(without_userinfo, settings.servers))
    return kept


def bare(servers: str) -> str:
    """Return a list of addresses as they are written, without the logins in them."""
    return ",".join(without_userinfo(server.strip()) for server in servers.split(","))


def secrets_of(settings: Settings) -> Iterator[str]:
    """Yield every text of the login that is worth hiding."""
    yield from filter(None, (settings.password, settings.token, settings.nkey_seed))
    with_login = [server for server in settings.servers if "@" in server]
    yield from with_login
    if with_login:
        yield ",".join(settings.servers)
    for server in with_login:
        parts = urlsplit(server)
        for text in (
            parts.password or parts.username,
            server.rpartition("@")[0].rpartition("/")[2],
        ):
            if text:
                yield from (text, unquote(text))


def conceal(*configurations: Any) -> None:
    """Take the login of every section out of what Airflow has read from its file.

    Args:
        configurations: Airflow's own parser and that of its SDK, which reads the file once more.
    """
    for parser in configurations:
        # Airflow's own methods look at other sources, too, and some run commands.
        for section in parser.sections():
            if section.rpartition("=")[2] != SECTION:
                continue
            for option in LOGIN:
                for source in SOURCES:
                    RawConfigParser.remove_option(parser, section, option + source)
            servers = RawConfigParser.get(parser, section, "servers", raw=True, fallback="")
            if "@" in servers:
                RawConfigParser.set(parser, section, "servers", bare(servers))


def hide_login() -> None:
    """Take NATS's login out of the configuration that this process and its forks see."""
    from airflow.configuration import conf
    from airflow.sdk.configuration import conf as sdk_conf

    conceal(conf, sdk_conf)
