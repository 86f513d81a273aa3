"""The real fork server, which starts the light supervisors of `supervision.py`.

Run as `python -Pm tests.chaos.forkserver REQUESTS EVENTS`, like the one it stands in for.
"""

from __future__ import annotations

import sys
from typing import Any

import nats_worker
import nats_worker.forkserver as real
from tests.chaos import supervision

__all__: list[str] = []


class ForkServer(real.ForkServer):
    """Tells its supervisors which dispatch they are for."""

    def supervise(self, request: dict[str, Any]) -> int:
        supervision.enter(request["id"])
        return super().supervise(request)


if __name__ == "__main__":
    sys.modules["nats_worker.supervision"] = supervision
    vars(nats_worker)["supervision"] = supervision
    vars(real).update(PRELOADED=(), ForkServer=ForkServer)
    real.main(int(sys.argv[1]), int(sys.argv[2]))
