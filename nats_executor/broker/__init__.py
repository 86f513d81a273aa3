"""Connects to NATS, asks, and reads the answers."""

from __future__ import annotations
