"""Streams and consumers: as they should be, how they differ, and their setup."""

from __future__ import annotations
