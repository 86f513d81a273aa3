"""Carries one delivery from its arrival to its ack."""

from __future__ import annotations
