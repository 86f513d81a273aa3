"""Answers orders and questions to a running worker, and keeps its presence."""

from __future__ import annotations
