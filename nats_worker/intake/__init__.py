"""The intake of a worker: how much it takes, from which queue, in which order."""

from __future__ import annotations
