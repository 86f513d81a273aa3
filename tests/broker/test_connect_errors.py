"""The remedy for a server that does not answer depends on whose address it is."""

from __future__ import annotations

import pytest

from nats_executor.broker.login import connect_error
from nats_executor.broker.servers import Servers
from tests.support.fixtures import settings_for

OURS, TLS, THEIRS = "nats://a:4222", "tls://b:4222", "nats://10.0.0.1:4222"


@pytest.mark.parametrize(
    ("server", "exc", "has_answered", "remedy"),
    [
        (OURS, ConnectionRefusedError(111, "refused"), False, "check [nats_executor] servers"),
        (
            OURS,
            TimeoutError(),
            False,
            "check [nats_executor] servers, and whether that server hangs",
        ),
        (OURS, ConnectionResetError(), False, "tls_handshake_first = True if it starts TLS first"),
        (TLS, TimeoutError(), False, "tls_handshake_first = True if it starts TLS first"),
        (OURS, TimeoutError(), True, "there was one before: check whether it hangs"),
        (OURS, ConnectionResetError(), True, "there was one before: check whether it hangs"),
        (THEIRS, ConnectionRefusedError(111, "refused"), False, "set no_advertise: true"),
        (THEIRS, TimeoutError(), False, "set no_advertise: true"),
        (THEIRS, TimeoutError(), True, "there was one before: check whether it hangs"),
    ],
)
def test_the_remedy_is_one_for_this_address(
    server: str, exc: Exception, remedy: str, *, has_answered: bool
) -> None:
    settings = settings_for(OURS, TLS)
    servers = Servers(settings.servers)
    if has_answered:
        servers.answered(server)

    line = str(connect_error(server, settings, exc, {}, servers))

    assert server in line
    assert remedy in line
    assert ("tls_handshake_first" in line) == ("tls_handshake_first" in remedy)
    assert ("check [nats_executor] servers" in line) == (server != THEIRS and not has_answered)
