"""Files and folders are whole at every moment: a process is killed before each of its steps."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sekron_edge import files

# Kills itself before the file operation of that number, as the interpreter announces it.
KILLED = """
import os, signal, sys
sys.path[:0] = sys.argv[4:]
from pathlib import Path
from sekron_edge import files
kind, path, at = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
if kind == "without exchange":
    files._swapped = lambda one, other: False
count = 0
def step(event, args):
    global count
    if event == "open" or (event.startswith(("os.", "shutil.", "tempfile.")) and event != "os.kill"):
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
if kind == "file":
    sys.addaudithook(step)
    files.write_text(path, "new" * 1000)
elif kind == "removed":
    sys.addaudithook(step)
    files.remove_folder(path)
else:
    sys.addaudithook(step)
    with files.whole_folder(path) as temporary:
        (temporary / "a").write_text("new")
        (temporary / "below").mkdir()
        (temporary / "below" / "b").write_text("new")
"""
OLD, NEW = {"a": "old", "below/b": "old"}, {"a": "new", "below/b": "new"}


def read(folder: Path) -> dict[str, str] | None:
    if not folder.exists():
        return None
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files.files_below(folder)}


def put(path: Path) -> None:
    (path / "below").mkdir(parents=True)
    (path / "a").write_text("old")
    (path / "below" / "b").write_text("old")


def killed(kind: str, path: Path, at: int) -> bool:
    done = subprocess.run([sys.executable, "-c", KILLED, kind, str(path), str(at), *sys.path], check=False)
    assert done.returncode in (0, -signal.SIGKILL)
    return done.returncode != 0


def test_a_file_is_the_old_one_or_the_new_one_wherever_its_writer_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    for at in range(100):
        path.write_text("old")
        was_killed = killed("file", path, at)
        assert path.read_text() in ("old", "new" * 1000)
        files.recover(path)
        assert list(tmp_path.iterdir()) == [path]
        if not was_killed:
            break
    assert at > 5
    assert path.read_text() == "new" * 1000


@pytest.mark.parametrize("kind", ["folder", "without exchange"])
def test_a_folder_is_the_old_one_or_the_new_one_wherever_its_writer_is_killed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bundle"
    for at in range(200):
        files.remove_folder(path)
        put(path)
        was_killed = killed(kind, path, at)
        if kind == "folder":
            assert read(path) in (OLD, NEW)
        files.recover(path)
        assert read(path) in (OLD, NEW)
        assert list(tmp_path.iterdir()) == [path]
        if not was_killed:
            break
    assert at > 20
    assert read(path) == NEW


def test_a_folder_is_removed_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "work"
    for at in range(100):
        files.remove_folder(path)
        put(path)
        was_killed = killed("removed", path, at)
        assert read(path) in (OLD, None)
        files.recover(path)
        if not was_killed:
            break
    assert at > 5
    assert list(tmp_path.iterdir()) == []


def test_an_exception_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    put(path)
    with pytest.raises(FileNotFoundError), files.whole_folder(path) as temporary:
        (temporary / "absent" / "a").write_text("new")
    assert read(path) == OLD
    assert list(tmp_path.iterdir()) == [path]
