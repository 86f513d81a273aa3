"""Orders and questions to a running worker, and its presence."""

from __future__ import annotations
