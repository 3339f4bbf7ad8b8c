"""What else runs while something is measured: as the system's files say, and as a busy core shows."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sekron_edge.artifacts import Artifact, PrimitiveExporter, get_exporter
from sekron_edge.measurement import Conditions, Load, LocalDevice
from sekron_edge.measurement._load import READ, load_between
from sekron_edge.primitives import Conv
from tests.narrowing import present

THREAD = "/proc/self/task/{}/schedstat"
CORES = "/proc/stat"
LONG = Conv((1, 64, 56, 56), 64, (3, 3), (1, 1), (1, 1), 1, (56, 56))


def texts(threads: dict[int, tuple[int, int]], cores: str = "") -> dict[str, str]:
    """Return the files of threads that ran and waited so long, in milliseconds."""
    found = {THREAD.format(n): f"{ran * 10**6} {waited * 10**6} 7" for n, (ran, waited) in threads.items()}
    return found | ({CORES: f"cpu  {cores} 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\nintr 1 2"} if cores else {})


def test_threads_and_cores_are_added_up_between_the_readings() -> None:
    before = texts({1: (1000, 50)}, "100 0 100 1000 10 0 0 5")
    after = texts({1: (1600, 150), 2: (300, 0)}, "250 0 130 1100 4 0 0 25")
    load = present(load_between(before, after))
    assert load.waited == pytest.approx(0.1)
    assert load.stolen == pytest.approx(20 / 200)
    # 180 ticks were busy, 90 of them the runner's own; all cores together had 300.
    assert load.others == pytest.approx(90 / 300)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param({}, {}, id="no such files"),
        pytest.param(texts({1: (1, 0)}, "1 0 0 1 0 0 0 0"), texts({1: (2, 9)}, "2 0 0 2 0 0 0 0"), id="no time passed"),
        pytest.param({CORES: "cpu a b"}, {CORES: "cpu -1"}, id="no numbers"),
        pytest.param({}, {CORES: f"cpu {'9' * 5000}", THREAD.format(1): "9" * 5000}, id="no numbers of any machine"),
        pytest.param({}, {CORES: "", THREAD.format(1): ""}, id="nothing in them"),
    ],
)
def test_what_is_not_counted_is_not_guessed(before: dict[str, str], after: dict[str, str]) -> None:
    assert load_between(before, after) is None


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 10**12), min_size=8, max_size=10), min_size=2, max_size=2), st.data())
def test_shares_are_shares_whatever_counters_say(cores: list[list[int]], data: st.DataObject) -> None:
    counters = st.dictionaries(st.integers(1, 3), st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), max_size=3)
    before, after = (texts(data.draw(counters), " ".join(map(str, one[:8]))) for one in cores)
    load = load_between(before, after) or Load()
    for share in (load.waited, load.stolen, load.others):
        assert share is None or 0 <= share <= 1


@pytest.fixture
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    exporter = get_exporter("litert")
    assert isinstance(exporter, PrimitiveExporter)
    return exporter.export_primitive(LONG, tmp_path_factory.mktemp("load") / "one.tflite", precision="fp32")


@pytest.fixture
def busy_core() -> Iterator[int]:
    """Return a core that two processes keep busy."""
    core = min(os.sched_getaffinity(0))
    program = f"import os; os.sched_setaffinity(0, [{core}])\nwhile True: pass"
    processes = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(2)]
    yield core
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="this system does not count waiting")  # noqa: PTH110
def test_a_busy_core_is_noticed_and_the_measurement_says_so(artifact: Artifact, busy_core: int) -> None:
    assert all(path.startswith("/proc/") for path in READ)
    found = LocalDevice().measure(artifact, Conditions(runs=30, warmup=2, affinity=(busy_core,)))
    assert present(present(found.load).waited) > 0.3
    assert not found.stable
    assert any(remark.startswith("disturbed: it waited for a core in ") for remark in found.remarks)
