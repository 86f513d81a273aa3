"""Reads through NATS which workers and queues there are."""

from __future__ import annotations
