"""What a broken or malicious board says is one error, in its time, in little memory, and never obeyed by a terminal."""

import io
import json
import resource
import sys
import time
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sekron_edge.artifacts import Artifact
from sekron_edge.errors import DeviceError
from sekron_edge.measurement import Conditions
from sekron_edge.measurement._deadline import Deadline
from sekron_edge.measurement._foreign import plain
from sekron_edge.measurement._hostinfo import HostInfo
from sekron_edge.measurement._protocol import MeasurementRequest, Outcome
from sekron_edge.measurement.transports import PipeBroken, measure_over_pipe

SECONDS = 3.0
MOST_BYTES = 300 << 20
# Reads what is sent, and then says what it was told to say; `{token}` is the request's.
BOARD = r"""
import json, os, sys, time
source = sys.stdin.buffer.read(int(sys.stdin.buffer.readline()))
request = json.loads(sys.stdin.buffer.readline())
def say(what, token=request["token"]):
    sys.stdout.buffer.write(b"sekron-edge " + token.encode() + b" " + what + b"\n"); sys.stdout.buffer.flush()
def tell(**what):
    say(json.dumps(what).encode())
def end(status=0, stdout=0, stderr=0, collected=(None,)):
    tell(status=status, stdout=stdout, stderr=stderr, collected=collected)
def take(missing):
    tell(missing=missing)
    for index in missing:
        sys.stdin.buffer.read(request["files"][index]["size"])
everything = list(range(len(request["files"])))
"""
ANSWERS = {
    "nothing": "",
    "no JSON": "say(b'frobnicate')",
    "a list": "say(b'[]')",
    "null": "say(b'null')",
    "a number": "say(b'1e400')",
    "an empty object": "say(b'{}')",
    "another key": "tell(mizzing=[])",
    "a text for a list": "tell(missing='abc')",
    "files that there are not": "tell(missing=[99])",
    "a negative file": "tell(missing=[-1])",
    "a file twice": "tell(missing=[0, 0])",
    "a request without end": "take([0])\ntake([0])",
    "deep nesting": "say(b'[' * 100_000)",
    "a million digits": "say(b'{\"missing\": [' + b'9' * 1_000_000 + b']}')",
    "a refusal without a reason": "tell(refused=None, transient=False)",
    "a long refusal": "tell(refused='x' * 900_000, transient=False)",
    "a negative length": "take(everything); end(stdout=-1)",
    "a huge length": "take(everything); end(stdout=10**10)",
    "a length that does not fit": "take(everything); end(stdout=10**40)",
    "too many files": "take(everything); end(stdout=2, collected=[5] * 1000)",
    "a huge file": "take(everything); end(stdout=2, collected=[10**10])",
    "a status that there is not": "take(everything); end(status=-9999)",
    "less than it said": "take(everything); end(stdout=500); sys.stdout.write('x')",
    "an answer that is none": "take(everything); end(stdout=4); sys.stdout.write('null')",
    "a flood of one line": "while True: sys.stdout.write('x' * 65536)",
    "a flood of lines": "while True: sys.stdout.write('hello\\n' * 10_000)",
    "a flood of complaints": "while True: sys.stderr.write('x' * 65536)",
    "silence": "time.sleep(60)",
    "bytes one by one": "while True: sys.stdout.write('x'); sys.stdout.flush(); time.sleep(0.01)",
    "another token": "say(b'{\"missing\": []}', token='0' * 16); time.sleep(60)",
}


def measured(script: str, artifact: Artifact, *, wants_outputs: bool = True) -> Outcome:
    request = MeasurementRequest(
        (artifact,), Conditions(timeout_s=SECONDS), inputs=(np.ones((1, 2), np.float32),), wants_outputs=wants_outputs
    )
    return measure_over_pipe(
        [sys.executable, "-c", BOARD + script], request, device="board", cache="~/.cache", deadline=Deadline.of(request)
    )


@pytest.fixture
def little_memory() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MOST_BYTES


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("kind", ANSWERS)
def test_whatever_a_board_answers_is_one_error_in_its_time(kind: str, doubler: Artifact) -> None:
    started = time.monotonic()
    with pytest.raises((DeviceError, PipeBroken)) as raised:
        measured(ANSWERS[kind], doubler)
    assert time.monotonic() - started < SECONDS + 15
    assert len(str(raised.value)) < 3000


def answered(answer: dict[str, Any], files: bytes | None = None) -> str:
    """Return a board that says this: ``{token}`` is replaced."""
    text, content = json.dumps(answer), b"" if files is None else files
    return f"""
take(everything)
text = {text!r}.replace("TOKEN", request["token"]).encode()
content = {content!r}
end(stdout=len(text), collected=[len(content) if content else None] * len(request["collect"]))
sys.stdout.buffer.write(text + content); sys.stdout.buffer.flush()
sys.stdin.buffer.readline()
"""


TIMING = {
    "runtime": "r", "runtime_version": "1", "timed": "call", "measurable": True, "settled": True,
    "milliseconds": [0.001] * 50, "peak_memory_bytes": None,
}  # fmt: skip
ANSWER = {
    "token": "TOKEN", "machine": "armv8", "system": "Linux", "python": "3.8", "cores": 4, "affinity": None,
    "elapsed_s": 1.0, "before": {}, "after": {}, "timings": [TIMING],
}  # fmt: skip


def outputs(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def test_the_answer_that_the_others_are_made_of_is_right(doubler: Artifact) -> None:
    right = outputs(**{"0": np.full((1, 1, 2), 2, np.float32)})
    found = measured(answered(ANSWER, right), doubler)
    assert found.answer.timings[0].milliseconds == (0.001,) * 50
    assert np.array_equal(found.outputs[0][0], [[2, 2]])


@pytest.mark.parametrize(
    "wrong",
    [
        {"token": "0" * 16}, {"timings": []}, {"timings": [TIMING, TIMING]}, {"cores": -1}, {"elapsed_s": float("nan")},
        {"elapsed_s": -5.0}, {"elapsed_s": 1e-9}, {"machine": "x" * 100_000}, {"machine": None}, {"before": []},
        {"timings": [TIMING | {"milliseconds": [-1.0] * 50}]}, {"timings": [TIMING | {"milliseconds": [1e400] * 50}]},
        {"timings": [TIMING | {"milliseconds": [0.0] * 50}]}, {"timings": [TIMING | {"milliseconds": [1e9] * 50}]},
        {"timings": [TIMING | {"milliseconds": []}]}, {"timings": [TIMING | {"averaged": 0}]},
        {"timings": [TIMING | {"averaged": -50}]}, {"timings": [TIMING | {"peak_memory_bytes": -1}]},
    ],
    ids=lambda wrong: json.dumps(wrong)[:60],
)  # fmt: skip
def test_figures_that_cannot_be_the_truth_are_refused(wrong: dict[str, Any], doubler: Artifact) -> None:
    with pytest.raises(DeviceError, match="board"):
        measured(answered(ANSWER | wrong), doubler, wants_outputs=False)


def compressed() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("0.npy", b"\0" * (1 << 24))
    return stream.getvalue()


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(
    "content",
    [
        b"no zip", outputs(), outputs(**{"0": np.zeros((1, 1, 3), np.float32)}), compressed(),
        outputs(**{"0": np.zeros((1, 1, 2), np.float64)}), outputs(**{"0": np.zeros((0, 1, 2), np.float32)}),
        outputs(**{"0": np.zeros((1, 1, 2), np.float32)})[:-30],
        outputs(**{"0": np.array([[{"an": "object"}]], dtype=object)}),
    ],
    ids=["no zip", "nothing", "another shape", "a bomb", "another type", "no batch", "cut short", "a pickle"],
)  # fmt: skip
def test_outputs_that_are_none_are_refused(content: bytes, doubler: Artifact) -> None:
    with pytest.raises(DeviceError, match="cannot be read"):
        measured(answered(ANSWER, content), doubler)


def test_a_terminal_obeys_nothing_that_a_board_says(doubler: Artifact) -> None:
    escape = "\x1b]0;mine\x07\x1b[2J\u202e"
    for script in (
        f"tell(refused={escape!r} + 'why', transient=False)",
        answered({"token": "TOKEN", "failure": {"stage": escape, "message": escape + "why"}}),
        f"sys.stderr.write({escape!r} + 'why'); sys.exit(1)",
    ):
        with pytest.raises((DeviceError, PipeBroken)) as raised:
            measured(script, doubler)
        said = raised.value.complaint if isinstance(raised.value, PipeBroken) else str(raised.value)
        assert "why" in said
        assert said == plain(said)
    found = measured(answered(ANSWER | {"machine": escape}), doubler, wants_outputs=False)
    assert found.answer.machine == plain(escape)
    assert "\x1b" not in found.answer.machine


@given(st.text())
def test_plain_text_is_printed_as_it_is(text: str) -> None:
    shown = plain(text)
    assert len(shown) == len(text)
    assert all(one.isprintable() or one in "\n\t" for one in shown)
    assert plain("Raspberry Pi 5, 2.4 GHz, größer 测试\n\tµs") == "Raspberry Pi 5, 2.4 GHz, größer 测试\n\tµs"


@given(
    st.dictionaries(
        st.sampled_from(["/proc/cpuinfo", "/proc/device-tree/model", "/proc/sys/kernel/arch",
                         "/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "/sys/class/hwmon/hwmon0/name",
                         "/sys/class/hwmon/hwmon0/temp1_input", "/sys/class/thermal/thermal_zone0/type",
                         "/sys/class/thermal/thermal_zone0/temp", "/sys/class/thermal/cooling_device0/cur_state"]),
        st.text() | st.sampled_from(["9" * 10_000, "-1", "nan", "inf", "k10temp", "CPU part : 0xZZ", "processor : x"]),
    )
)  # fmt: skip
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_whatever_a_boards_files_say_is_understood_or_not_known(files: dict[str, str]) -> None:
    info = HostInfo(files)
    for name in [name for name, value in vars(HostInfo).items() if isinstance(value, property)]:
        getattr(info, name)
