"""What a worker takes: how much, from which queue, in which order."""

from __future__ import annotations
