"""Defines what goes over NATS: names, messages and their bounds. Pure."""

from __future__ import annotations
