"""Connects to NATS, stays connected, asks and answers."""

from __future__ import annotations
