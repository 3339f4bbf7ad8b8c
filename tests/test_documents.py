"""TOML and JSON of others: nested deeply, with endless numbers, in other encodings, no files: one clear error."""

import hashlib
import json
import re
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sekron_edge.bundle._contents import read_manifest
from sekron_edge.bundle._sound import _numbers
from sekron_edge.data._coco import read_coco
from sekron_edge.data._files import FileTree
from sekron_edge.devices import load_profile
from sekron_edge.documents import parsed_json, read_toml
from sekron_edge.errors import BundleError, ConfigError, DataError, DeviceError, ProfileError, SekronEdgeError
from sekron_edge.measurement import MeasurementStore
from sekron_edge.measurement._user_devices import user_devices
from sekron_edge.pipeline import load_config
from sekron_edge.pipeline._output import claimed
from sekron_edge.pipeline._work import Work
from tests.commands import run


def refusal(read: Callable[[], object], kind: type[SekronEdgeError]) -> str:
    """Return how what is read is refused; empty if it is not."""
    try:
        read()
    except kind as error:
        return str(error)
    return ""


DEEP = "nested by more than 64 levels|more than 64 parts"
TOMLS = {
    "deep lists": (b"a = " + b"[" * 5000 + b"]" * 5000, DEEP),
    "deep tables": (b"a = " + b"{a=" * 5000 + b"1" + b"}" * 5000, DEEP),
    "deep keys": (b".".join([b"a"] * 100_000) + b" = 1", DEEP),
    "deep headers": (b"[" + b" . ".join([b'"a"'] * 3000) + b"]", DEEP),
    "lists that Python can still show": (b"a = " + b"[" * 150 + b"]" * 150, DEEP),
    "digits": (b"seed = " + b"9" * 1_000_000, "integer of more than 64 bits"),
    "hexadecimal digits": (b"seed = 0x" + b"f" * 1_000_000, "integer of more than 64 bits"),
    "UTF-16": ('name = "x"'.encode("utf-16"), "not text in UTF-8"),
    "Latin-1": ('name = "ü"'.encode("latin-1"), "not text in UTF-8"),
    "NUL": (b"name = 'x\0'", "invalid character"),
    "NUL in an escape": (b'name = "x\\u0000"', "NUL character"),
    "two megabytes": (b"#" * (2 << 20), "more than 1,048,576 bytes"),
    "no TOML": (b"name = ", "as TOML"),
}


@pytest.mark.parametrize("what", TOMLS)
def test_toml_that_cannot_be_meant_is_one_error_with_the_files_name(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, message = TOMLS[what]
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    monkeypatch.setenv("SEKRON_EDGE_DEVICES", str(path))
    reads: list[tuple[Callable[[], object], type[SekronEdgeError]]] = [
        (partial(load_config, path), ConfigError),
        (partial(load_profile, path), ProfileError),
        (user_devices, ConfigError),
    ]
    for read, kind in reads:
        with pytest.raises(kind, match=rf"x\.toml cannot be read.*({message})") as refused:
            read()
        assert len(str(refused.value)) < 400
    ended = run("plan", path)
    assert (ended.code, ended.out) == (2, "")
    assert "x.toml cannot be read" in ended.err


def test_folders_and_files_without_an_end_are_no_toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (tmp_path, Path("/dev/zero"), tmp_path / "nul\0.toml"):
        with pytest.raises(ConfigError, match="cannot be read"):
            load_config(path)
    with pytest.raises(ProfileError, match="Is a directory"):
        load_profile(tmp_path)
    monkeypatch.setenv("SEKRON_EDGE_DEVICES", str(tmp_path))
    with pytest.raises(ConfigError, match="Is a directory"):
        user_devices()
    monkeypatch.setenv("SEKRON_EDGE_DEVICES", str(tmp_path / "none.toml"))
    assert user_devices() == {}


def test_a_byte_order_mark_is_no_part_of_a_document(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b"\xef\xbb\xbfname = 'x'")
    assert read_toml(path, ConfigError) == {"name": "x"}
    assert parsed_json(b'\xef\xbb\xbf{"a": 1}', "x.json", DataError) == {"a": 1}


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.sampled_from([*b"[]{}=.,\"'\n #\\0xe19_-:TZau\0\xff", *b"\xef\xbb\xbf"]), max_size=60).map(bytes))
def test_toml_and_json_of_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    for read in (partial(read_toml, path, ConfigError), partial(parsed_json, content, path, ConfigError)):
        said = refusal(read, ConfigError)
        assert not said or said.startswith(f"{path} cannot be read")


WHOLE: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "a.png"}],
    "categories": [{"id": 2}],
    "annotations": [{"id": 3, "image_id": 1, "category_id": 2, "bbox": [0, 0, 4, 4]}],
}
VALUES: list[object] = [
    None, True, -1, 1.5, 1e39, float("nan"), 1 << 70, 10**4000, "x", "\0", [], {}, [1, 2, 3, 1e39],
    [1, 2, 3, 10**400], [[]],
]  # fmt: skip
JSONS = [
    b"[" * 100_000, b'{"a":' * 100_000, b'{"images": [{"id": ' + b"9" * 1_000_000 + b"}]}", b"", b'{"a": "\0"}',
    json.dumps(WHOLE).encode("utf-16"), '{"ü": 1}'.encode("latin-1"), b"[]", b"1", b'{"images": {}}', b'"\\ud800"',
]  # fmt: skip


def changed(place: tuple[str, str], value: object) -> bytes:
    content = json.loads(json.dumps(WHOLE))
    content[place[0]][0][place[1]] = value
    return json.dumps(content).encode()


PLACES = [(key, name) for key, (entry,) in WHOLE.items() for name in entry]


def coco(folder: Path, content: bytes) -> object:
    (folder / "a.png").touch()
    (folder / "a.json").write_bytes(content)
    return read_coco(FileTree(folder), "a.json", "")


def test_boxes_of_any_json_are_read_or_refused(tmp_path: Path) -> None:
    assert coco(tmp_path, json.dumps(WHOLE).encode())
    for content in JSONS:
        with pytest.raises(DataError, match=r"a\.json"):
            coco(tmp_path, content)
    for place in PLACES:
        for value in VALUES:
            said = refusal(partial(coco, tmp_path, changed(place, value)), DataError)
            assert not said or "a.json" in said
            assert len(said) < 600


def test_a_category_is_no_share_and_a_side_no_infinity(tmp_path: Path) -> None:
    for place, value in [(("annotations", "category_id"), 2.5), (("annotations", "bbox"), [0, 0, 4, 1e39])]:
        with pytest.raises(DataError):
            coco(tmp_path, changed(place, value))


@pytest.mark.parametrize("content", [*JSONS, b'{"schema_version": 1}'])
def test_records_of_ours_that_somebody_changed_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.tflite").touch()
    (tmp_path / "net.tflite.json").write_bytes(content)
    ended = run("bench", tmp_path / "net.tflite")
    assert ended.code == BundleError.exit_code
    assert re.search(
        r"error: .*net\.tflite\.json cannot be read: .*export the model again", ended.err.replace("\n", " ")
    )
    (tmp_path / "manifest.json").write_bytes(content)
    seal = f"{hashlib.sha256(content).hexdigest()}  manifest.json\n"
    (tmp_path / "manifest.json.sha256").write_text(seal)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        read_manifest(tmp_path)
    with claimed(tmp_path / "out", resume=False) as output:
        work = Work(output, {"a": "b"})
        (work.folder / "plan.json").write_bytes(content)
        with pytest.raises(ConfigError, match=r"plan\.json cannot be read.*remove .*out\.work"):
            work.plan()
        (work.folder / "job.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"out\.work is where an unfinished job would be kept"):
        claimed(tmp_path / "out", resume=True).__enter__()


@pytest.mark.parametrize("content", [*JSONS, b"\xff\0"])
def test_measurements_that_somebody_changed_are_refused_by_their_number(content: bytes, tmp_path: Path) -> None:
    store = MeasurementStore(tmp_path / "all.sqlite")
    assert store.measurements() == []
    text = content[:100_000] if content == b"\xff\0" else content.decode("latin-1")
    with sqlite3.connect(store.path) as database:
        database.execute("INSERT INTO measurements VALUES (7, 'a', 'b', 'c', 'd', ?)", (text,))
        database.execute("INSERT INTO calibrations VALUES (8, 'a', 'b', 'c', 'd', 1, ?)", (text,))
        database.execute("INSERT INTO timings VALUES (8, 'Linear', ?, 1, 1, 1, 1)", (text,))
        database.execute("INSERT INTO timings VALUES (9, 'none', '{}', 1, 1, 1, 1)")
    for read, where in (
        (store.measurements, "measurement 7"),
        (partial(store.measurement, 7), "measurement 7"),
        (store.calibrations, "calibration 8"),
        (partial(store.medians, 8), "calibration 8"),
        (partial(store.medians, 9), "calibration 9"),
    ):
        with pytest.raises(ConfigError, match=rf"{where} of .*all\.sqlite cannot be read"):
            read()
    store.path.unlink()
    store.path.mkdir()
    with pytest.raises(DeviceError, match=r"all\.sqlite"):
        store.measurements()


def test_a_large_integer_in_a_manifest_is_a_number() -> None:
    assert not [*_numbers({"seed": 10**400}, "")]
    assert [*_numbers({"runs": -(10**400)}, "")]
