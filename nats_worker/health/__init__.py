"""Answers probes over HTTP, and measures for metrics."""

from __future__ import annotations
