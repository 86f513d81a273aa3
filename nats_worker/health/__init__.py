"""A worker's probes and metrics, over HTTP."""

from __future__ import annotations
