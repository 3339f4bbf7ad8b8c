"""What goes wrong with files: bytes that change, texts that somebody wrote, trees whose values are others."""

from __future__ import annotations

import json
from random import Random
from typing import Any

# What no schema expects, or only just: kinds, signs, sizes, what a terminal obeys, what a path means.
_ODD: list[Any] = [
    None, True, False, 0, -1, 1, 10**40, -0.5, 1e308, float("nan"), float("inf"), "", "x" * 5000, "\x1b[2J", "\0", "..",
    "../../escape", "/etc/passwd", "~", "a/b", [], {}, [[]], [None], {"": None}, "0.5x", "-1x", "1e400", "ünïcode 測試",
]  # fmt: skip
# Of TOML.
_ODD_VALUES = [
    "0", "-1", "nan", "inf", "1e400", '""', "[]", "{}", "true", '"x"', '"../.."', '"\\u0000"', "2020-01-01", "[[[]]]",
    "99999999999999999999", '"0.5x"', '"-3 %"', "{a = 1}", "0x", "'", "1_0__0",
]  # fmt: skip
_SIGNS = "[]{}=\"'#,.-\n\t\0\\0123456789eE_ %$~/\x7f\u202e"


def bytes_altered(content: bytes, drawn: Random) -> bytes:
    """Return other bytes: some flipped, cut out, doubled, made zero or drawn at random, or the end missing."""
    while True:
        altered = bytearray(content)
        at = drawn.randrange(len(content)) if content else 0
        size = min(drawn.choice((1, 2, 4, 8, 40, 400)), len(content) - at)
        match drawn.randrange(7):
            case 0:
                if content:
                    altered[at] ^= 1 << drawn.randrange(8)
            case 1:
                del altered[at : at + size]
            case 2:
                altered[at:at] = altered[at : at + size]
            case 3:
                altered[at : at + size] = bytes(size)
            case 4:
                altered[at : at + size] = drawn.randbytes(size)
            case 5:
                # Sizes and offsets are written so.
                number = drawn.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, drawn.getrandbits(32)))
                altered[at : at + 4] = number.to_bytes(4, "little")
            case _:
                del altered[at:]
        if bytes(altered) != content:
            return bytes(altered)


def text_altered(content: bytes, drawn: Random) -> bytes:
    """Return another text: a line gone, doubled or moved, signs typed wrongly, deep nesting, another encoding."""
    text = content.decode()
    lines = text.splitlines(keepends=True)
    at = drawn.randrange(len(text))
    while True:
        match drawn.randrange(12):
            case 0:
                altered = lines.copy()
                altered.pop(drawn.randrange(len(lines)))
                found = "".join(altered).encode()
            case 1:
                line = drawn.randrange(len(lines))
                found = "".join([*lines[:line], lines[line], *lines[line:]]).encode()
            case 2:
                found = "".join(drawn.sample(lines, len(lines))).encode()
            case 3:
                found = (text[:at] + drawn.choice(_SIGNS) + text[at:]).encode()
            case 4:
                found = (text[:at] + drawn.choice(_SIGNS) + text[at + 1 :]).encode()
            case 5:
                found = (text[:at] + text[at + drawn.randrange(1, 20) :]).encode()
            case 6:
                found = _with_value(text, drawn).encode()
            case 7:
                depth = drawn.choice((50, 2_000, 100_000))
                found = (text[:at] + drawn.choice("[{(") * depth + text[at:]).encode()
            case 8:
                found = (text[:at] + "9" * drawn.choice((40, 5_000, 1_000_000)) + text[at:]).encode()
            case 9:
                found = text.encode(drawn.choice(("utf-16", "utf-32", "utf-8-sig")))
            case 10:
                found = text[:at].encode()
            case _:
                found = bytes_altered(content, drawn)
        if found != content:
            return found


def _with_value(text: str, drawn: Random) -> str:
    """Give one key of ``key = value`` lines something odd."""
    lines = text.splitlines()
    assigned = [index for index, line in enumerate(lines) if " = " in line]
    if not assigned:
        return text + "x"
    line = drawn.choice(assigned)
    key, _, _ = lines[line].partition(" = ")
    odd = drawn.choice(_ODD_VALUES)
    lines[line] = f"{key} = {odd}"
    return "\n".join(lines) + "\n"


def json_altered(content: bytes, drawn: Random) -> bytes:
    """Return another tree: a value replaced by an odd one or a nearby one, a key or an element gone, added or twice."""
    if drawn.randrange(5) == 0:
        return text_altered(content, drawn)
    while True:
        tree = json.loads(content)
        places = list(_places(tree))
        holder, key = drawn.choice(places)
        match drawn.randrange(6):
            case 0 | 1:
                holder[key] = drawn.choice(_ODD)
            case 2:
                del holder[key]
            case 3:
                value = holder[key]
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    holder[key] = drawn.choice((-value, value + 1, value * 2, value / 2, str(value)))
                elif isinstance(value, str) and value:
                    at = drawn.randrange(len(value))
                    holder[key] = value[:at] + drawn.choice(_SIGNS) + value[at + 1 :]
            case 4:
                if isinstance(holder, list):
                    holder.insert(key, holder[key])
                else:
                    holder[f"{key}_"] = holder[key]
            case _:
                other, place = drawn.choice(places)
                holder[key] = json.loads(json.dumps(other[place]))
        found = json.dumps(tree, indent=2).encode() + b"\n"
        if json.loads(found) != json.loads(content):
            return found


def _places(tree: Any) -> Any:
    """Yield every holder of a value, with its key or index there."""
    for key in range(len(tree)) if isinstance(tree, list) else tree if isinstance(tree, dict) else ():
        yield tree, key
        yield from _places(tree[key])
