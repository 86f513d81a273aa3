"""Compares streams and consumers with what they should be, and tells what can be changed.

Everything here is plain data in the words of NATS's JSON API.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nats_executor.errors import TopologyMismatch
from nats_executor.topology.wanted import SECOND

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nats_executor.broker.port import Config, StreamInfo

__all__ = [
    "Drift",
    "bearable",
    "compare",
    "require_changeable",
    "require_no_loss",
    "with_additions",
    "with_state",
]

# Settings that are never changed in an existing stream or consumer. NATS refuses most of these
# changes. It would change a filter, but then messages under the old one are never delivered; and a
# retention other than a work queue's, which loses messages that no consumer wants (seen on 2.15.1).
FIXED = frozenset(
    {"retention", "storage", "ack_policy", "deliver_policy", "filter_subject", "max_waiting"}
)
# Those of them, and the replicas, that do not keep an executor from sending: another release may
# want another value.
BEARABLE = frozenset({"max_waiting", "num_replicas"})
NEEDS_CLUSTER = (
    "the server that answers is in no cluster; set [nats_executor] replicas = 1, or let it join one"
)


@dataclass(frozen=True, slots=True)
class Drift:
    """One setting that is not as it should be.

    Attributes:
        drops: which messages NATS removes when it is changed, '' for none.
        remedy: what to do about it where it cannot be changed, '' where it can.
    """

    where: str
    setting: str
    found: Any
    wanted: Any
    drops: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        if self.setting == "existence":
            return f"{self.where}: does not exist"
        if self.setting == "num_replicas":
            number = f"{self.found} replica{'' if self.found == 1 else 's'}"
            return f"{self.where} has {number}, [nats_executor] replicas is {self.wanted}"
        return f"{self.where}: {self.setting} is {self.found!r}, should be {self.wanted!r}"

    @property
    def caution(self) -> str:
        """The warning before it is changed, '' for none."""
        if self.remedy:
            return f"that cannot be changed in place: {self.remedy}"
        return f"changing it drops {self.drops}" if self.drops else ""

    @property
    def advice(self) -> str:
        """The difference, and what to do about it."""
        if self.remedy:
            return f"{self}; {self.caution}"
        if self.drops:
            return f"{self}: run `airflow nats setup --may-drop`; {self.caution}"
        remedy = "run `airflow nats setup`"
        if self.setting == "num_replicas" and (self.found or 0) > self.wanted:
            remedy = f"set replicas = {self.found}, or {remedy} to have fewer"
        return f"{self}: {remedy}"


def drifts(where: str, found: Config, wanted: Config) -> list[Drift]:
    """Return every setting of `wanted` that `found` lacks; settings that NATS adds do not count."""
    return [
        Drift(where, setting, found.get(setting), value)
        for setting, value in wanted.items()
        if not matches(found.get(setting), value)
    ]


def matches(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):  # NATS adds metadata of its own
        return isinstance(found, dict) and wanted.items() <= found.items()
    if isinstance(wanted, list):  # an operator, or a later release, has added subjects
        return isinstance(found, list) and set(wanted) <= set(found)
    # NATS leaves out what is false.
    return bool(found == wanted or (found is None and wanted is False))


def with_additions(existing: Config, wanted: Config) -> Config:
    """Return a configuration as it should be, with all that others have added to it.

    Without a subject that is there, its messages would stay in the stream and reach no consumer.
    """
    config = existing | wanted
    if "subjects" in wanted:
        config["subjects"] = list(
            dict.fromkeys([*wanted["subjects"], *(existing.get("subjects") or [])])
        )
    if "metadata" in wanted:
        config["metadata"] = (existing.get("metadata") or {}) | wanted["metadata"]
    return config


def compare(where: str, existing: Config | None, wanted: Config, remedy: str) -> list[Drift]:
    if existing is None:
        return [Drift(where, "existence", None, "exists")]
    return [
        replace(drift, remedy=remedy) if drift.setting in FIXED else drift
        for drift in drifts(where, existing, wanted)
    ]


def with_state(drift: Drift, info: StreamInfo, wanted: Config) -> Drift:
    """Add what follows from a stream's state to a difference of its settings."""
    if drift.setting == "max_bytes" and wanted["discard"] == "old":
        return replace(drift, drops=overflowing(drift.wanted, info.bytes, "bytes"))
    if drift.setting == "max_msgs":
        return replace(drift, drops=overflowing(drift.wanted, info.messages, "messages"))
    if drift.setting == "max_age":
        return replace(drift, drops=outlived(drift.wanted / SECOND, info))
    # 2.11 takes the number without a word, and makes no copy.
    if drift.setting == "num_replicas" and drift.wanted > 1 and not info.replication.is_clustered:
        return replace(drift, remedy=NEEDS_CLUSTER)
    return drift


def outlived(seconds: float, info: StreamInfo) -> str:
    """Say which messages are older than that, '' for none."""
    oldest = info.time - info.first_at
    if not info.messages or oldest <= seconds:
        return ""
    return f"messages that are older than {seconds:.0f} s; the oldest one is {oldest:.0f} s old"


def overflowing(limit: int, stored: int, unit: str) -> str:
    """Say what a smaller limit removes where the oldest messages make room, '' for nothing."""
    if 0 < limit < stored:
        return f"the oldest messages; {stored} {unit} are stored"
    return ""


def bearable(found: Iterable[Drift]) -> list[Drift]:
    differences = [drift for drift in found if drift.setting != "existence"]
    require_changeable(drift for drift in differences if drift.setting not in BEARABLE)
    return differences


def require_changeable(differences: Iterable[Drift]) -> None:
    for drift in differences:
        if drift.remedy:
            raise TopologyMismatch(f"{drift}; {drift.caution}")


def require_no_loss(differences: Iterable[Drift]) -> None:
    for drift in differences:
        if drift.drops:
            raise TopologyMismatch(
                f"{drift}; {drift.caution}. Nothing was changed; `airflow nats setup --may-drop` "
                "does it all the same"
            )
