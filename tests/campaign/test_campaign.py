"""CI's share of the campaign: some faults of every kind, always the same ones."""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.campaign import campaign
from tests.campaign.faults import bytes_altered, json_altered, text_altered
from tests.campaign.kinds import KINDS
from tests.campaign.subjects import Accepting, Subject

# A fault of these takes longer than a few milliseconds: processes, converters, many images.
_FEWER = {
    ".mlpackage": 30,
    "command line": 50,
    "images": 60,
    "zip of images": 100,
    "packing, killed at any step": 100,
    "weights and plan of a bundle": 100,
}
_FAULTS = 300


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_fault_loses_leaks_hangs_or_ends_without_a_clear_error(kind: str) -> None:
    tally = campaign.suffered(kind, range(_FEWER.get(kind, _FAULTS)))
    assert tally.bad == 0, tally.examples
    assert sum(tally.counts.values()) == _FEWER.get(kind, _FAULTS)


def test_a_fault_is_always_another_content_and_the_same_for_its_seed() -> None:
    whole = {
        bytes_altered: bytes(range(200)),
        text_altered: b'a = 1\nb = "x"\n',
        json_altered: b'{"a": [1, "b"], "c": {}}',
    }
    for alter, content in whole.items():
        for seed in range(500):
            altered = alter(content, random.Random(seed))
            assert altered != content
            assert altered == alter(content, random.Random(seed))


def _sleeps(_: Path) -> None:
    time.sleep(9)


def _grows(_: Path) -> None:
    bytearray(3 << 30)


@pytest.mark.parametrize(
    ("outcome", "use"),
    [
        ("lost", lambda folder: (folder / "other").unlink()),
        ("leaked", lambda folder: (folder / "more").write_text("")),
        ("traceback", lambda _: int("x")),
        ("past its limit", _sleeps),
        ("crash", lambda _: os.abort()),
        ("traceback", _grows),
        ("wrong", lambda _: None),
    ],
)
def test_every_bad_outcome_is_seen(outcome: str, use: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A campaign that could not fail would say nothing."""

    def subject(folder: Path) -> Subject:
        (folder / "victim").write_text("x" * 100)
        (folder / "other").write_text("of the user's")
        return Subject(folder, lambda: use(folder), (folder / "victim",), bytes_altered, Accepting.NEVER)

    monkeypatch.setitem(KINDS, "bad", subject)
    monkeypatch.setattr(campaign, "LIMIT_S", 1)
    tally = campaign.suffered("bad", range(2))
    assert tally.counts == {outcome: 2}
    assert tally.examples[0][1] == outcome
