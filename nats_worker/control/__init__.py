"""Answers what others ask of a worker, and announces it to them."""

from __future__ import annotations
