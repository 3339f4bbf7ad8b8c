"""A job writes where it may: to a new folder, over its own bundle, and never over what is somebody else's."""

import subprocess
import sys
from pathlib import Path

import pytest

from sekron_edge import files
from sekron_edge.errors import ConfigError
from sekron_edge.pipeline._output import claimed
from sekron_edge.pipeline._work import Work

HOLDING = """
import sys
from pathlib import Path
from sekron_edge.pipeline._output import claimed
with claimed(Path(sys.argv[1]), resume=False):
    print("claimed", flush=True)
    sys.stdin.read()
"""


def test_what_is_not_ours_stops_a_job_before_it_begins_and_stays(tmp_path: Path) -> None:
    out = tmp_path / "b"
    for name, content in (
        ("b.work/thesis.txt", "x"),  # a folder of that name, but no job's
        ("b.work/job.json", '{"my": "own"}'),
        ("b.work/plan.json", "{}"),
        ("b/notes.txt", "x"),
        ("b/manifest.json", '{"name": "a web app"}'),
        ("b", "a file"),
        ("b.work", "a file"),
    ):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(content)
        named = str(file.parent if file.parent != tmp_path else file)
        with pytest.raises(ConfigError, match=named) as raised, claimed(out, resume=False):
            pytest.fail("claimed")
        assert raised.value.exit_code == 2
        assert file.read_text() == content
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]
        file.unlink()
        if file.parent != tmp_path:
            file.parent.rmdir()


def test_a_key_that_cannot_sign_ends_a_job_before_it_begins(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="absent is no key"),
        claimed(tmp_path / "b", resume=False, sign=tmp_path / "absent"),
    ):
        pytest.fail("claimed")
    assert not list(tmp_path.iterdir())


def test_a_link_in_the_place_of_the_bundle_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with claimed(tmp_path / "link", resume=False) as output:
        assert output.bundle == tmp_path / "real"
        assert output.work == tmp_path / "real.work"


def test_what_others_put_into_a_jobs_folder_stays_when_the_job_ends(tmp_path: Path) -> None:
    with claimed(tmp_path / "b", resume=False) as output:
        work = Work(output, {"seed": "1"})
        work.artifacts.mkdir()
        note = output.work / "note.txt"
        note.write_text("mine")
        work.remove()
    assert note.read_text() == "mine"
    assert [path.name for path in output.work.iterdir()] == ["note.txt"]


def test_a_job_that_fails_at_once_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no data"), claimed(tmp_path / "b", resume=False):
        raise ValueError("no data")
    assert list(tmp_path.iterdir()) == []


def test_two_jobs_do_not_write_to_one_place_and_a_killed_one_does_not_hold_it(tmp_path: Path) -> None:
    out = tmp_path / "b"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "claimed\n"
        with pytest.raises(ConfigError, match="another job is writing to"), claimed(out, resume=True):
            pytest.fail("claimed")
        other.kill()
    with claimed(out, resume=False):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_beside_a_bundle_is_removed_or_brought_back(tmp_path: Path) -> None:
    bundle, left = tmp_path / "b", tmp_path / ".b-x1y2z3ab.sekron-edge"
    (left / "previous").mkdir(parents=True)
    (left / "b").mkdir()
    (left / "previous" / "seal").write_text("old")
    files.recover(bundle)
    assert [path.name for path in tmp_path.rglob("*")] == ["b", "seal"]
    (tmp_path / ".b-notes").mkdir()
    files.recover(bundle)
    assert (tmp_path / ".b-notes").is_dir()
