"""Takes workloads: how many, from which queue, in which order."""

from __future__ import annotations
