"""`airflow celery worker` that notes, for each task instance, when its process is free again.

Celery says so with `task_postrun`, in the pool process, once the result is stored.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module

from tests.bench.timed_worker import note


def note_postrun(args: list[str], **_: object) -> None:
    note(json.loads(args[0])["ti"]["id"])


if __name__ == "__main__":
    from airflow.__main__ import main

    import_module("celery.signals").task_postrun.connect(note_postrun)
    sys.argv[0] = "airflow"
    main()
