"""The one way to NATS: connects, asks, and reads the answers."""

from __future__ import annotations
