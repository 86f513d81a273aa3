"""Packs a program as Airflow's coordinators want it, as the SDKs of other languages do."""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from pathlib import Path

from airflow.sdk.execution_time.schema import get_schema_version_migrator

__all__ = ["pack_node", "pack_program"]

HERE = Path(__file__).parent
DAG_ID = "outcomes"


def newest_schema() -> str:
    return max(v for v in get_schema_version_migrator()._version_values if v[0].isdigit())


def metadata() -> bytes:
    return json.dumps(
        {
            "airflow_bundle_metadata_version": "1.0",
            "sdk": {"language": "test", "supervisor_schema_version": newest_schema()},
            "dags": {DAG_ID: {}},
            "task_handlers": {DAG_ID: ["succeed", "sleep"]},
        }
    ).encode()


def pack_program(folder: Path) -> None:
    """Write an executable with its metadata at the end, for the `ExecutableCoordinator`."""
    runtime = HERE / "runtime.py"
    code = f'#!/bin/sh\nexec {sys.executable} -P {runtime} "$@"\n'.encode()
    about = metadata()
    digest = hashlib.sha256(code).digest()
    footer = struct.pack("<III", 0, len(about), 1) + digest + bytes(12) + b"AFBNDL01"
    path = folder / "program"
    path.write_bytes(code + about + footer)
    path.chmod(0o755)


def pack_node(folder: Path) -> None:
    """Write a script with its metadata in front of it, for the `NodeCoordinator`."""
    code, about = (HERE / "runtime.mjs").read_bytes(), metadata()
    marker = b"//# airflowMetadata="

    def header(begin: int) -> bytes:
        """The first line; its length depends on no offset."""
        end = begin + len(marker) + len(about) + 1
        spans = {
            "metadata": (begin + len(marker), end - 1, about),
            "code": (end, end + len(code), code),
        }
        layout: dict[str, object] = {
            name: {
                "start": f"{start:016x}",
                "end": f"{stop:016x}",
                "sha256": hashlib.sha256(data).hexdigest(),
            }
            for name, (start, stop, data) in spans.items()
        }
        return b"//# airflowBundle=" + json.dumps(layout | {"sources": []}).encode() + b"\n"

    first = header(len(header(0)))
    (folder / "handlers.min.mjs").write_bytes(first + marker + about + b"\n" + code)
