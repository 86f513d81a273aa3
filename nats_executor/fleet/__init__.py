"""The workers and queues, as others see them through NATS."""

from __future__ import annotations
