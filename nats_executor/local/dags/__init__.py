"""What the demo runs."""

from __future__ import annotations
