"""Names, messages and their bounds: all that goes over NATS. Pure."""

from __future__ import annotations
