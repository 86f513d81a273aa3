"""What others may ask of a worker, and what it tells them."""

from __future__ import annotations
