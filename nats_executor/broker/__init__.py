"""The door to NATS: everything that connects, asks and answers."""

from __future__ import annotations
