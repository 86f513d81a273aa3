"""The door to NATS: connects, asks, and reads the answers."""

from __future__ import annotations
