"""Tells over HTTP how a worker is."""

from __future__ import annotations
