"""What a worker tells about itself over HTTP."""

from __future__ import annotations
