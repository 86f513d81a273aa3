"""Runs `nats-worker` as `python -m nats_worker`."""

from __future__ import annotations

from nats_worker.cli import main

main()
