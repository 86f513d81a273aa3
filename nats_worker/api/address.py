"""Finds out which API server a worker's tasks talk to, and which option of Airflow's says so.

Airflow lets a team's section inherit nothing: a team without an address of its own would be sent to
localhost. Its address is meant for all, unless a team has one, as other executors take it.
"""

from __future__ import annotations

from dataclasses import dataclass

from airflow.executors.base_executor import ExecutorConf, get_execution_api_server_url

from nats_worker.api.answers import without_login

__all__ = ["api_address"]

URL = ("core", "execution_api_server_url")
# In the order of their rank, and Airflow's: the first one's default is made of the second one.
ADDRESS_OPTIONS = (URL, ("api", "base_url"))


@dataclass(frozen=True, slots=True)
class ApiAddress:
    """An address of the Execution API, and the option to look at when it is wrong.

    Attributes:
        option: as a user writes it, a team's with the team in its section.
    """

    url: str
    option: str

    def __str__(self) -> str:
        return f"the API server at {without_login(self.url)} ({self.option})"


def api_address(team: str | None) -> ApiAddress:
    """Return the address for a team's tasks: the team's own, or the one for all."""
    for owner in dict.fromkeys((team, None)):
        conf = ExecutorConf(owner)
        for section, option in ADDRESS_OPTIONS:
            if conf.get(section, option, fallback=None):
                return ApiAddress(
                    get_execution_api_server_url(conf), option_in_text(owner, section, option)
                )
    url = get_execution_api_server_url(ExecutorConf(None))
    return ApiAddress(url, f"{option_in_text(None, *URL)}, which is not set")


def option_in_text(team: str | None, section: str, option: str) -> str:
    return f"[{team}={section}] {option}" if team else f"[{section}] {option}"
