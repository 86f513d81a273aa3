"""Implements `port.Broker` by JetStream's JSON API and the headers that the server defines.

nats-py's JetStream layer is not used: it has no batched gets and not every setting, and its
exceptions hide which limit a refused message met.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any

from nats_executor.broker import pulls
from nats_executor.broker.diagnosis import Diagnosis
from nats_executor.broker.gets import BATCH, GET_WINDOW, Gets
from nats_executor.broker.link import Link, Listener, Received
from nats_executor.broker.port import (
    Broker,
    Config,
    ConsumerInfo,
    Outgoing,
    Pulls,
    Reply,
    ServerOffer,
    Stored,
    StreamInfo,
    Subjects,
    Usage,
)
from nats_executor.broker.reading import read_stream
from nats_executor.broker.replies import (
    api_error,
    as_timestamp,
    consumer_info,
    sequence_in,
    silent,
    stored,
    stream_info,
    unheard,
    untaken,
    usage,
    why_unstored,
)
from nats_executor.errors import (
    AccessDenied,
    BrokerError,
    BrokerUnavailable,
    LimitReached,
    NoResponders,
    NotFound,
)
from nats_executor.wire.names import in_domain
from nats_executor.wire.sizes import ANSWER_BYTES, QUESTION_BYTES, WORKLOAD_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from nats_executor.settings import Settings

__all__ = ["JetStream"]

log = logging.getLogger(__name__)

# Pause before a reader is created again.
REREAD_SECONDS = 1.0


class JetStream(Broker):
    """A broker over one connection.

    Args:
        diagnoses: whether to ask for a stream's state if there is no usable answer.
    """

    def __init__(self, link: Link, settings: Settings, *, diagnoses: bool = True) -> None:
        self._link = link
        self._timeout = settings.publish_timeout_seconds
        self._domain = domain = settings.jetstream_domain
        self._api = f"$JS.{domain}.API" if domain else "$JS.API"
        self._silence = pulls.Silence()
        results = settings.names.results_stream
        self._diagnosis = Diagnosis(link, self._api, results, may_ask=diagnoses)
        self._gets = Gets(link, self._api, self._timeout)

    @property
    def denied(self) -> str:
        return self._link.denied

    @property
    def server_version(self) -> str:
        return self._link.server_version

    @property
    def offer(self) -> ServerOffer:
        return self._link.offer

    @property
    def is_connected(self) -> bool:
        return self._link.is_connected

    @property
    def connected_since(self) -> float:
        return self._link.connected_since

    async def ready(self, timeout: float) -> None:
        await self._link.ready(timeout)

    # Core NATS

    async def request(self, subject: str, body: bytes, *, timeout: float) -> bytes:
        answer: Received = await self._link.ask(subject, body, timeout=timeout)
        if (size := len(answer.data)) > ANSWER_BYTES:
            text = f"an answer of {size} bytes on {subject}; {ANSWER_BYTES} is the most"
            raise BrokerUnavailable(text)
        return answer.data

    async def serve(self, subject: str, reply: Reply) -> None:
        async def answer(msg: Received) -> None:
            response = await reply(msg.data[: QUESTION_BYTES + 1])
            if msg.reply:
                with contextlib.suppress(BrokerUnavailable):  # the asker asks again
                    await self._link.send(msg.reply, response)

        await self._link.listen(Listener(answer, subject=subject))

    # Messages

    async def publish(
        self,
        subject: str,
        body: bytes,
        *,
        message_id: str | None = None,
        expected_last: int | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 5.0,
    ) -> int:
        all_headers = dict(headers or {})
        if message_id is not None:
            all_headers["Nats-Msg-Id"] = message_id
        if expected_last is not None:
            all_headers["Nats-Expected-Last-Subject-Sequence"] = str(expected_last)
        address = in_domain(subject, self._domain)
        async with self._diagnosis.explained(timeout):
            try:
                msg = await self._link.ask(address, body, headers=all_headers, timeout=timeout)
            except NoResponders as exc:
                raise untaken(subject) from exc
            return sequence_in(subject, msg)

    async def publish_all(
        self, messages: Sequence[Outgoing], *, timeout: float
    ) -> list[BrokerError | None]:
        late = f"no answer within {timeout:g} s"
        outcomes: dict[int, Received | BrokerError] = {}
        is_answered = asyncio.Event()

        def resolve(place: int, outcome: Received | BrokerError) -> None:
            outcomes.setdefault(place, outcome)
            if len(outcomes) == len(messages):
                is_answered.set()

        with contextlib.ExitStack() as awaited, contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                for place, (subject, body, message_id) in enumerate(messages):
                    address = in_domain(subject, self._domain)
                    answer = self._link.awaiting(address, partial(resolve, place))
                    reply = awaited.enter_context(answer)
                    headers = None if message_id is None else {"Nats-Msg-Id": message_id}
                    try:
                        await self._link.send(address, body, reply=reply, headers=headers)
                    except BrokerError as exc:
                        resolve(place, exc)
                if messages:
                    await is_answered.wait()
        refusals = [
            why_unstored(message.subject, outcomes.get(place) or BrokerUnavailable(late))
            for place, message in enumerate(messages)
        ]
        return await self._diagnosis.explain_all(refusals, limit=timeout)

    async def last(self, stream: str, subject: str) -> Stored | None:
        async with self._diagnosis.explained():
            try:
                msg = await self._link.ask(f"{self._api}.DIRECT.GET.{stream}.{subject}")
            except NoResponders as exc:
                raise silent(stream) from exc
            return stored(msg)

    async def last_of_each(
        self, stream: str, subjects: Sequence[str], *, largest: int = WORKLOAD_BYTES
    ) -> list[Stored]:
        return await self._gets.last_of_each(stream, subjects, largest)

    async def occupied(self, stream: str, subjects: Sequence[str]) -> set[str]:
        found: set[str] = set()
        groups: defaultdict[str, list[str]] = defaultdict(list)
        for subject in subjects:
            groups[subject.rpartition(".")[0]].append(subject)
        for parent, group in groups.items():
            listed = await self._listed(stream, f"{parent}.*") if len(group) > GET_WINDOW else None
            if listed is None:
                there = await self.last_of_each(stream, group, largest=0)
                listed = {message.subject for message in there}
            found |= listed.intersection(group)
        return found

    async def _listed(self, stream: str, subject: str) -> set[str] | None:
        """Return all subjects with messages; None where the server does not list them in one go.

        Pages are not of one moment: a subject that is there all the time may be on none of them.
        """
        try:
            found = await self.subjects(stream, subject)
        except NotFound as exc:
            raise silent(stream) from exc
        return set(found.messages) if found.is_whole else None

    async def scan(
        self, stream: str, subject: str, *, largest: int = WORKLOAD_BYTES
    ) -> list[Stored]:
        return await self._gets.scan(stream, subject, largest)

    async def page(
        self, stream: str, *, start: int, most: int, largest: int = WORKLOAD_BYTES
    ) -> list[Stored]:
        request = {"next_by_subj": ">", "seq": start, "batch": min(most, BATCH)}
        return (await self._gets.page(stream, request, largest)).messages

    async def remove(self, stream: str, subject: str) -> bool:
        # Not by STREAM.PURGE: while other messages are in flight it spoils what the server writes
        # down about their consumer, and after a restart nats-server 2.15.1 never offers them again.
        found = await self.last(stream, subject)
        if found is None:
            return False
        try:
            request = {"seq": found.sequence, "no_erase": True}
            await self._call(f"STREAM.MSG.DELETE.{stream}", request)
        except BrokerError:
            if await self.last(stream, subject) is None:  # it was removed or acked meanwhile
                return False
            raise
        return True

    async def pull(self, stream: str, consumer: str, *, is_limited: bool = True) -> Pulls:
        at, is_sound = partial(self.last, stream), self._diagnosis.is_sound
        look = pulls.StreamView(at, not self._domain, is_sound, self._silence, is_limited)
        return await pulls.QueuePulls.open(self._link, self._next(stream, consumer), look)

    def _next(self, stream: str, consumer: str) -> str:
        return f"{self._api}.CONSUMER.MSG.NEXT.{stream}.{consumer}"

    async def follow(
        self, stream: str, *, after: int, largest: int = WORKLOAD_BYTES
    ) -> AsyncIterator[Stored]:
        created: float | None = None
        while True:
            try:
                info = await self.stream_info(stream)
                if info is not None:
                    if created not in {None, info.created} or info.last_sequence < after:
                        log.warning("stream %s is a new one; next: reading it all", stream)
                        after = 0
                    created = info.created
                reader = await self._create_reader(stream, after)
                reading = read_stream(self._link, self._next(stream, reader), largest)
                async with contextlib.aclosing(reading) as messages:
                    async for message in messages:
                        after = message.sequence
                        yield message
            except (AccessDenied, LimitReached):  # a person has to do something
                raise
            except BrokerError as exc:
                log.debug("reader of %s: %s", stream, exc)
            await asyncio.sleep(REREAD_SECONDS)

    async def _create_reader(self, stream: str, after: int) -> str:
        """Create an ephemeral consumer that the server forgets a minute after its last pull."""
        config = {
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": after + 1,
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": 60 * 1_000_000_000,
        }
        request = {"stream_name": stream, "config": config}
        return str((await self._call(f"CONSUMER.CREATE.{stream}", request))["name"])

    # Streams and consumers

    async def _call(self, verb: str, request: Config | None = None) -> dict[str, Any]:
        """Call JetStream's JSON API and return its response, or raise what its error code means."""
        body = json.dumps(request).encode() if request is not None else b""
        async with self._diagnosis.explained():
            try:
                msg = await self._link.ask(f"{self._api}.{verb}", body)
            except NoResponders as exc:
                raise unheard(verb, self._domain) from exc
            response: dict[str, Any] = json.loads(msg.data)
            if error := response.get("error"):
                wanted = request or {}
                replicas, size = wanted.get("num_replicas", 0), wanted.get("max_bytes", 0)
                raise api_error(verb, error, replicas=replicas, size=size)
        return response

    async def stream_info(self, stream: str) -> StreamInfo | None:
        response = await self._if_found(f"STREAM.INFO.{stream}")
        if response is None:
            return None
        info = stream_info(stream, response)
        self._diagnosis.note(info.replication)
        return info

    async def subjects(self, stream: str, subject: str) -> Subjects:
        response = await self._call(f"STREAM.INFO.{stream}", {"subjects_filter": subject})
        found = response["state"].get("subjects") or {}
        return Subjects(found, len(found) >= response.get("total", 0))

    async def purge(self, stream: str, subject: str) -> int:
        response = await self._call(f"STREAM.PURGE.{stream}", {"filter": subject})
        return int(response["purged"])

    async def usage(self) -> Usage:
        return usage(await self._call("INFO"))

    async def pause_consumer(self, stream: str, consumer: str, until: float) -> None:
        await self._call(
            f"CONSUMER.PAUSE.{stream}.{consumer}", {"pause_until": as_timestamp(until)}
        )

    async def consumer_infos(self, stream: str) -> list[ConsumerInfo]:
        infos: list[ConsumerInfo] = []
        while True:
            page = await self._call(f"CONSUMER.LIST.{stream}", {"offset": len(infos)})
            infos += [consumer_info(entry) for entry in page.get("consumers") or []]
            if len(infos) >= page["total"] or not page.get("consumers"):
                return infos

    async def _if_found(self, verb: str) -> dict[str, Any] | None:
        try:
            return await self._call(verb)
        except NotFound:
            return None

    async def stream_config(self, stream: str) -> Config | None:
        response = await self._if_found(f"STREAM.INFO.{stream}")
        return None if response is None else dict(response["config"])

    async def create_stream(self, config: Config) -> None:
        await self._call(f"STREAM.CREATE.{config['name']}", config)

    async def update_stream(self, config: Config) -> None:
        await self._call(f"STREAM.UPDATE.{config['name']}", config)

    async def consumer_config(self, stream: str, consumer: str) -> Config | None:
        response = await self._if_found(f"CONSUMER.INFO.{stream}.{consumer}")
        return None if response is None else dict(response["config"])

    async def create_consumer(self, stream: str, config: Config) -> None:
        await self._put_consumer(stream, config, "create")

    async def update_consumer(self, stream: str, config: Config) -> None:
        await self._put_consumer(stream, config, "update")

    async def delete_consumer(self, stream: str, consumer: str) -> None:
        await self._call(f"CONSUMER.DELETE.{stream}.{consumer}")

    async def _put_consumer(self, stream: str, config: Config, action: str) -> None:
        subject = f"CONSUMER.CREATE.{stream}.{config['durable_name']}.{config['filter_subject']}"
        await self._call(subject, {"stream_name": stream, "config": config, "action": action})
