"""Defines the errors of this project, in one screen."""

from __future__ import annotations

__all__ = [
    "AccessDenied",
    "BrokerError",
    "BrokerUnavailable",
    "ConfigError",
    "DatabaseAway",
    "DecodeError",
    "LimitReached",
    "MessageTooLarge",
    "NatsExecutorError",
    "NoQuorum",
    "NoResponders",
    "NotFound",
    "StreamFull",
    "SubjectOccupied",
    "TopologyMismatch",
    "UnknownVersion",
    "WrongSequence",
]


class NatsExecutorError(Exception):
    """The root of every error that this package raises on purpose."""


class ConfigError(NatsExecutorError):
    """An option holds a value that cannot work; names the option, the value and the remedy."""


# What a message holds


class DatabaseAway(NatsExecutorError):
    """Airflow's database gives a command no answer."""


class DecodeError(NatsExecutorError):
    """A message is not what its subject promises; it becomes a dead letter."""


class UnknownVersion(DecodeError):
    """A message has a format version that this release does not know."""


# What the broker answers


class BrokerError(NatsExecutorError):
    """The broker refused or could not be asked."""


class BrokerUnavailable(BrokerError):
    """No usable answer: disconnected, timed out, no quorum or no leader. Trying again may help."""


class NoQuorum(BrokerUnavailable):
    """Too few servers of the cluster are in touch to store anything, or to elect a leader."""


class StreamFull(BrokerUnavailable):
    """The stream or its server has reached a limit (NATS errors 10023, 10047, 10077)."""


class LimitReached(BrokerError):
    """The account may have no more streams or consumers (NATS errors 10026, 10027).

    What is there goes on, so this is no outage.
    """


class AccessDenied(BrokerError):
    """The credentials are wrong, or the user may not publish or subscribe to a subject."""


class NoResponders(BrokerError):
    """No client is subscribed to a request's subject: the one that should be is not connected."""


class NotFound(BrokerError):
    """The stream or consumer does not exist."""


class WrongSequence(BrokerError):
    """A compare-and-set lost: the subject's last sequence is not the expected one."""


class SubjectOccupied(BrokerError):
    """The subject holds its one message already (NATS error 10077)."""


class MessageTooLarge(BrokerError):
    """The body is over the server's `max_payload` or the stream's `max_msg_size`."""


class TopologyMismatch(BrokerError):
    """A stream or consumer exists with settings that this release cannot work with."""
