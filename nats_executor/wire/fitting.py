"""Cuts reports, presence records and descriptions to a size that streams and askers take. Pure.

Those of this project are far smaller. One becomes too large with hundreds of queues of long names,
or when it answers a forged report.
"""

from __future__ import annotations

from dataclasses import replace

from nats_executor.wire.descriptions import Description, encode_description
from nats_executor.wire.messages import LONGEST_LIST, Presence, Report, encode
from nats_executor.wire.sizes import ANSWER_BYTES, HEADERS_BYTES, PRESENCE_BYTES, REPORT_BYTES

__all__ = ["fitted_description", "fitted_presence", "fitted_report"]

# Of a text for people, such as a host's name; ids are shorter as well.
LONGEST_NAME = 250
LONGEST_ID = 1000
LONGEST_INFO = 500
KEPT_PREDECESSORS = 2
TEXT_HEAD = 5  # bytes in which msgpack says how long a text is, at most


def fitted_report(report: Report) -> bytes:
    """Encode a report; one that is too large loses most of its texts, then its key.

    The key is for readers that do not know the dispatch.
    """
    limit = REPORT_BYTES - HEADERS_BYTES
    body = encode(report)
    if len(body) > limit:
        report = shortened(report)
        body = encode(report)
    return body if len(body) <= limit else encode(replace(report, key=[]))


def shortened(report: Report) -> Report:
    return replace(
        report,
        info=report.info[:LONGEST_INFO],
        kind=report.kind[:LONGEST_NAME],
        worker=report.worker[:LONGEST_ID],
        worker_name=report.worker_name[:LONGEST_NAME],
        sender=report.sender[:LONGEST_ID],
        predecessors=[name[:LONGEST_NAME] for name in report.predecessors[-KEPT_PREDECESSORS:]],
        hops=[],
    )


def fitted_presence(presence: Presence) -> bytes:
    """Encode a record; one that is too large has shorter texts and loses its last queues."""
    limit = PRESENCE_BYTES - HEADERS_BYTES
    body = encode(presence)
    if len(body) <= limit:
        return body
    short = replace(
        presence,
        host=presence.host[:LONGEST_NAME],
        version=presence.version[:LONGEST_NAME],
        airflow=presence.airflow[:LONGEST_NAME],
        python=presence.python[:LONGEST_NAME],
        paused=presence.paused[:LONGEST_INFO],
        drained_by=presence.drained_by[:LONGEST_NAME],
        drain_reason=presence.drain_reason[:LONGEST_INFO],
        queues=[],
    )
    room = limit - len(encode(short))
    queues: list[str] = []
    for queue in presence.queues:
        room -= TEXT_HEAD + len(queue.encode())
        if room < 0:
            break
        queues.append(queue)
    return encode(replace(short, queues=queues))


def fitted_description(description: Description) -> bytes:
    """Encode an answer; one that is too large leaves the last deliveries out, and counts them."""
    carried = description.carried[:LONGEST_LIST]
    while True:
        left_out = len(description.carried) - len(carried)
        body = encode_description(replace(description, carried=carried, left_out=left_out))
        if len(body) <= ANSWER_BYTES or not carried:
            return body
        # By what they take on average: at least one less, as the body is too long for all.
        carried = carried[: len(carried) * ANSWER_BYTES // len(body)]
