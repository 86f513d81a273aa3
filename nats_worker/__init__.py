"""The worker: pulls workloads from NATS JetStream, runs each in a process of its own, acks."""

from __future__ import annotations
