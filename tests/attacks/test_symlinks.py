"""A task puts links in the place of its log and of the folders around it; then it is stored."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from nats_executor.broker.connection import connect
from nats_executor.logs import ended, store
from nats_executor.logs.ended import StoredLogs
from tests.support.realm import NAMES, Realm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration

SECRET = "not for the Dag's author\n"
PATH = "dag_id=a/run_id=b/attempt=1.log"


class Instance:
    """What Airflow says of a task instance."""

    queue = "a"


class Ground:
    """A log folder beside something that is none of a task's business."""

    def __init__(self, directory: Path, realm: Realm) -> None:
        self.realm = realm
        self.folder = directory / "logs"
        self.outside = directory / "outside"
        for folder in (self.folder, self.outside / "run_id=b"):
            folder.mkdir(parents=True)
        self.secrets = [
            self.outside / "secret",
            self.outside / "attempt=1.log",
            self.outside / "run_id=b" / "attempt=1.log",
        ]
        for secret in self.secrets:
            secret.write_text(SECRET)
        self.logs = StoredLogs(self.folder, deletes=True)
        vars(self.logs)["_settings"] = realm.settings("worker_a")

    def write(self, text: str = "a line\n") -> Path:
        file = self.folder / PATH
        file.parent.mkdir(parents=True)
        file.write_text(text)
        return file

    def upload(self) -> None:
        self.logs.upload(PATH, Instance())

    def stored(self) -> bytes:
        async def look() -> bytes:
            async with connect(self.realm.settings("api_server"), role="test") as broker:
                await broker.ready(10)
                found = await store.find(broker, NAMES, "a", PATH)
                bodies = [
                    await store.chunks(broker, NAMES, "a", PATH, part, part.numbers)
                    for part in found.parts
                ]
            return b"".join(body or b"" for part in bodies for body in part)

        return asyncio.run(look())

    @property
    def is_intact(self) -> bool:
        return all(secret.read_text() == SECRET for secret in self.secrets)


@pytest.fixture
def ground(tmp_path: Path, realm: Realm) -> Iterator[Ground]:
    yield Ground(tmp_path, realm)
    ended.leave_to(None)


def at_the_end(ground: Ground) -> None:
    file = ground.write()
    file.unlink()
    file.symlink_to(ground.outside / "secret")


def at_the_end_to_a_file_in_the_folder(ground: Ground) -> None:
    other = ground.folder / "other.log"
    other.write_text(SECRET)
    file = ground.write()
    file.unlink()
    file.symlink_to(other)


def in_the_midst(ground: Ground) -> None:
    (ground.folder / "dag_id=a").symlink_to(ground.outside)


def in_the_midst_and_relative(ground: Ground) -> None:
    (ground.folder / "dag_id=a").symlink_to("../outside")


def in_the_last_folder(ground: Ground) -> None:
    (ground.folder / "dag_id=a").mkdir()
    (ground.folder / "dag_id=a" / "run_id=b").symlink_to(ground.outside)


def a_pipe(ground: Ground) -> None:
    file = ground.write()
    file.unlink()
    os.mkfifo(file)


LINKS = (
    at_the_end, at_the_end_to_a_file_in_the_folder, in_the_midst, in_the_midst_and_relative,
    in_the_last_folder, a_pipe,
)  # fmt: skip


@pytest.mark.parametrize("link", LINKS, ids=lambda link: link.__name__)
def test_nothing_behind_a_link_is_stored_or_deleted(
    ground: Ground, link: Callable[[Ground], None], caplog: pytest.LogCaptureFixture
) -> None:
    link(ground)

    ground.upload()

    assert ground.stored() == b""
    assert ground.is_intact
    assert (ground.folder / PATH).is_symlink() or (ground.folder / PATH).exists()
    reason = "it is no regular file" if link is a_pipe else "a symbolic link is in its path"
    assert f"{ground.folder / PATH} is not in NATS and stays here: {reason}" in caplog.text


def test_a_file_is_stored_and_deleted_with_its_folders(ground: Ground) -> None:
    """The same way through, so that the ones above mean something."""
    ground.write()

    ground.upload()

    assert ground.stored() == b"a line\n"
    assert list(ground.folder.iterdir()) == []


def swapped_file(ground: Ground) -> None:
    """A link in the place of the log."""
    file = ground.folder / PATH
    file.rename(ground.folder / "kept")
    file.symlink_to(ground.outside / "secret")


def swapped_folder(ground: Ground) -> None:
    """A link in the place of a folder, to one that has a file of the log's name."""
    (ground.folder / "dag_id=a").rename(ground.folder / "kept")
    (ground.folder / "dag_id=a").symlink_to(ground.outside)


def swapped_last_folder(ground: Ground) -> None:
    (ground.folder / "dag_id=a" / "run_id=b").rename(ground.folder / "kept")
    (ground.folder / "dag_id=a" / "run_id=b").symlink_to(ground.outside)


def another_file(ground: Ground) -> None:
    """A file of somebody's, moved to where the log was."""
    file = ground.folder / PATH
    file.unlink()
    os.link(ground.outside / "secret", file)


@pytest.mark.parametrize(
    "swap", [swapped_file, swapped_folder, swapped_last_folder, another_file],
    ids=lambda swap: swap.__name__,
)  # fmt: skip
def test_nothing_is_deleted_that_comes_into_the_way_meanwhile(
    ground: Ground, swap: Callable[[Ground], None]
) -> None:
    """Between the first look and the deletion there is all the time of an upload."""
    ground.write()
    read: list[bytes] = []

    def swapping(_queue: str, _path: str, file: int) -> None:
        swap(ground)
        read.append(os.pread(file, 100, 0))

    ended.leave_to(swapping)
    ground.upload()

    assert read == [b"a line\n"]
    assert ground.is_intact
    if swap is another_file:
        assert (ground.folder / PATH).exists()


def test_no_descriptor_stays_open(ground: Ground) -> None:
    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted while it is open

    ended.leave_to(lambda *_: None)
    in_the_midst(ground)
    before = opened()

    for path in (PATH, "nowhere/x.log", "dag_id=a"):
        ground.logs.upload(path, Instance())
    (ground.folder / "dag_id=c").mkdir()
    (ground.folder / "dag_id=c" / "x.log").write_text("a line\n")
    ground.logs.upload("dag_id=c/x.log", Instance())

    assert opened() == before
