"""Pulls workloads from NATS JetStream, runs each in a process of its own, and acks it."""

from __future__ import annotations
