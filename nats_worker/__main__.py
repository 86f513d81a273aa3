"""`python -m nats_worker` is `nats-worker`."""

from __future__ import annotations

from nats_worker.cli import main

main()
