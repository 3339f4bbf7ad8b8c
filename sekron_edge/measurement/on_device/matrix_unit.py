"""Keeping a process from Intel's matrix unit (AMX), which no phone and no board has.

The unit multiplies tiles of 16 pixels and 64 channels: XNNPACK's int8 convolution of 16 channels takes as long with it
as one of 64, and three times as long as without it. What is fast there says nothing of other devices. Linux lends the
unit to processes that ask for it; runtimes that are refused take their vector kernels.

``python matrix_unit.py COMMAND...`` runs a command without the unit; nothing of sekron-edge is imported for that.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

# From Linux's headers: seccomp, and the system call arch_prctl of x86-64 with which processes ask for the unit.
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, _PR_SET_NO_NEW_PRIVS = 22, 2, 38
_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM = 158, 0x1023
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER, _FIRST_ARGUMENT = 0, 16
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050001


def refuse_matrix_unit() -> None:
    """Keep this process, and all that it starts from now on, from the matrix unit; there is no way back.

    Raises:
        OSError: If Linux does not do it.
    """
    instructions = (
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_IF_EQUAL, 0, 3, _ARCH_PRCTL),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_JUMP_IF_EQUAL, 0, 1, _ARCH_REQ_XCOMP_PERM),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    )
    packed = b"".join(struct.pack("HBBI", *instruction) for instruction in instructions)
    program = ctypes.create_string_buffer(packed, len(packed))
    libc = ctypes.CDLL(None, use_errno=True)
    filtered = struct.pack("HxxxxxxP", len(instructions), ctypes.addressof(program))
    done = (
        sys.platform == "linux"
        and libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
        and libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, filtered, 0, 0) == 0
    )
    if not done:
        raise OSError(ctypes.get_errno(), "Linux refused the filter that keeps a process from AMX")


if __name__ == "__main__":
    refuse_matrix_unit()
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - the very command that was given
