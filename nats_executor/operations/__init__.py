"""Shows what operators ask for and does what they order, for commands and the page alike."""

from __future__ import annotations
