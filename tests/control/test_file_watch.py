"""watch(): every way in which files change is told, by notification at once and by polling alone."""

import asyncio
import itertools
import os
import shutil
from contextlib import aclosing

import pytest

from pygw.control import file_watch
from pygw.control.file_watch import watch

PROMPT = 5.0  # seconds; what is due comes in a fraction of one, and this only ends a test that fails


def swap_config_map(path):
    """As the kubelet updates a mounted ConfigMap: a new folder, and ..data renamed onto it."""
    (path / "..new").mkdir()
    (path / "..new" / "x.yaml").write_text("new")
    (path / "..data_tmp").symlink_to("..new")
    (path / "..data_tmp").rename(path / "..data")
    shutil.rmtree(path / "..old")


def save_by_rename(path):
    """As vim and others save: the old file away, a new one in its place."""
    (path / "a.yaml").rename(path / "a.yaml~")
    (path / "a.tmp").write_text("new")
    (path / "a.tmp").rename(path / "a.yaml")
    (path / "a.yaml~").unlink()


def replace_folder(path):
    path.rename(path.with_name("away"))
    path.mkdir()
    (path / "a.yaml").write_text("new")


CHANGES = {
    "written": lambda path: (path / "a.yaml").write_text("new"),
    "appended": lambda path: (path / "a.yaml").open("a").close() or os.truncate(path / "a.yaml", 9),
    "saved by rename": save_by_rename,
    "same size and time": lambda path: (
        (path / "b.tmp").write_text("old"),
        os.utime(path / "b.tmp", ns=(0, os.stat(path / "a.yaml").st_mtime_ns)),
        (path / "b.tmp").rename(path / "a.yaml"),
    ),
    "deleted": lambda path: (path / "a.yaml").unlink(),
    "new file": lambda path: (path / "b.yml").write_text("new"),
    "ConfigMap": swap_config_map,
    "folder replaced": replace_folder,
    "made unreadable": lambda path: (path / "a.yaml").chmod(0),
}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "watched"
    path.mkdir()
    (path / "a.yaml").write_text("old")
    (path / "..old").mkdir()
    (path / "..old" / "x.yaml").write_text("old")
    (path / "..data").symlink_to("..old")
    (path / "x.yaml").symlink_to("..data/x.yaml")
    return path


async def told(paths, change, **options):
    """Change something once the watch is set; return when it is told."""
    async with aclosing(watch([str(path) for path in paths], **options)) as changes:
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)  # the first fingerprint is taken
        change()
        await asyncio.wait_for(waiting, PROMPT)


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("how", ["notified", "polled"])
def test_a_change_in_a_folder_is_told(folder, name, how):
    options = {"poll_interval": 60.0} if how == "notified" else {"poll_interval": 0.02, "use_inotify": False}
    asyncio.run(told([folder], lambda: CHANGES[name](folder), settle=0.01, **options))


@pytest.mark.parametrize("how", ["notified", "polled"])
@pytest.mark.parametrize("name", ["written", "saved by rename", "deleted", "folder replaced", "ConfigMap"])
def test_a_change_of_a_file_is_told(folder, name, how):
    options = {"poll_interval": 60.0} if how == "notified" else {"poll_interval": 0.02, "use_inotify": False}
    file = folder / ("x.yaml" if name == "ConfigMap" else "a.yaml")
    asyncio.run(told([file, "-"], lambda: CHANGES[name](folder), settle=0.01, **options))


def test_a_file_that_comes_later_is_told(tmp_path):
    asyncio.run(told([tmp_path / "later.yaml"], lambda: (tmp_path / "later.yaml").write_text("x"), poll_interval=60))


def test_polling_finds_what_no_notification_tells(tmp_path):
    path = tmp_path / "a" / "b.yaml"  # in a folder that is not there yet, nor watched

    def make():
        path.parent.mkdir()
        path.write_text("x")

    asyncio.run(told([path], make, poll_interval=0.02))


def test_without_inotify_there_is_polling(tmp_path, monkeypatch):
    class Exhausted:
        def inotify_init1(self, flags):
            return -1

        def inotify_add_watch(self, *arguments):
            raise AssertionError

    monkeypatch.setattr(file_watch, "_inotify_library", Exhausted)
    asyncio.run(told([tmp_path], lambda: (tmp_path / "a.yaml").write_text("x"), poll_interval=0.02))


def test_each_group_of_changes_is_told_once_and_again(folder):
    async def run():
        async with aclosing(watch([str(folder)], poll_interval=60, settle=0.05)) as changes:
            for group in range(3):
                waiting = asyncio.ensure_future(anext(changes))
                await asyncio.sleep(0)
                for file in range(20):
                    (folder / f"{file}.yaml").write_text(str(group))
                await asyncio.wait_for(waiting, PROMPT)
            waiting = asyncio.ensure_future(anext(changes))
            done, _ = await asyncio.wait([waiting], timeout=0.2)
            assert not done
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(run())


def test_a_change_is_told_although_more_follow(folder, monkeypatch):
    monkeypatch.setattr(file_watch, "MAX_DELAY", 0.1)

    async def run():
        async def write_on():
            number = 0
            while True:
                (folder / "a.yaml").write_text(str(number := number + 1))
                await asyncio.sleep(0.005)

        writer = asyncio.ensure_future(write_on())
        async with aclosing(watch([str(folder)], settle=0.02)) as changes:
            for _ in range(3):
                await asyncio.wait_for(anext(changes), PROMPT)
        writer.cancel()

    asyncio.run(run())


def test_what_is_not_read_is_not_told(folder):
    async def run():
        async with aclosing(watch([str(folder)], poll_interval=0.02)) as changes:
            waiting = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0)
            (folder / ".a.yaml.swp").write_text("x")
            (folder / "notes.txt").write_text("x")
            done, _ = await asyncio.wait([waiting], timeout=0.2)
            assert not done
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(run())


def test_nothing_stays_open(folder):
    before = sorted(os.listdir("/proc/self/fd"))
    asyncio.run(told([folder], lambda: CHANGES["written"](folder)))
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_looks_at_many_files_are_as_rare_as_they_are_dear(tmp_path, monkeypatch):
    clock = itertools.count()
    waits = []

    async def wait(self, seconds):
        waits.append(seconds)
        (tmp_path / "a.yaml").write_text("changed")

    monkeypatch.setattr(file_watch.time, "thread_time", lambda: next(clock) * 0.004)
    monkeypatch.setattr(file_watch._Notifier, "wait", wait)

    async def first_change():
        async with aclosing(watch([str(tmp_path)], poll_interval=1.0, settle=0.001)) as changes:
            await anext(changes)

    asyncio.run(first_change())
    assert waits == [pytest.approx(4.0)]  # a look took 4 ms: a thousandth of the time
