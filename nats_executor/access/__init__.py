"""Computes what each NATS user may do, and which account it has. Pure."""

from __future__ import annotations
