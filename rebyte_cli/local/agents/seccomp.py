"""The system calls that the kernel refuses inside the jail, as a seccomp program for bubblewrap.

keyctl, add_key and request_key reach every key of the user, whatever the namespaces. io_uring and
userfaultfd, which attacks on the kernel often use, are refused as container engines refuse them.
A refused call answers as a kernel without it does, and programs expect that.
"""

from __future__ import annotations

import errno
import platform
import struct
import sys

# The kernel's number of an architecture, and there: add_key, request_key, keyctl, userfaultfd.
# A process can use the calls of each architecture that its processor runs, so all are refused.
X86_64, I386, AARCH64, ARM = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028
RISCV64, RISCV32, LOONGARCH64 = 0xC00000F3, 0x400000F3, 0xC0000102
PPC64LE, PPCLE, S390X, S390 = 0xC0000015, 0x40000014, 0x80000016, 0x00000016
GENERIC = (217, 218, 219, 282)
NUMBERS = {
    X86_64: (248, 249, 250, 323),
    I386: (286, 287, 288, 374),
    AARCH64: GENERIC,
    ARM: (309, 310, 311, 388),
    RISCV64: GENERIC,
    RISCV32: GENERIC,
    LOONGARCH64: GENERIC,
    PPC64LE: (269, 270, 271, 364),
    PPCLE: (269, 270, 271, 364),
    S390X: (278, 279, 280, 355),
    S390: (278, 279, 280, 355),
}
IO_URING = (425, 426, 427)  # setup, enter and register: the same on every architecture
MACHINES = {
    "x86_64": X86_64, "aarch64": AARCH64, "riscv64": RISCV64, "loongarch64": LOONGARCH64,
    "ppc64le": PPC64LE, "s390x": S390X,
}  # fmt: skip

# Instructions of classic BPF, and where the call's number and architecture are in its input.
LOAD, AND, JUMP_IF_EQUAL, RETURN = 0x20, 0x54, 0x15, 0x06
CALL, ARCHITECTURE = 0, 4
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | errno.ENOSYS
X32 = 0x40000000  # a bit in the number: the call of x86_64, with 32-bit pointers

SET_SECCOMP, MODE_FILTER = 22, 2


def is_available() -> bool:
    """Whether the kernel takes such a program, and the calls of this machine are known."""
    import ctypes

    if platform.machine() not in MACHINES:
        return False
    # Without a program, the call fails with EFAULT where the kernel would take one.
    ctypes.CDLL(None, use_errno=True).prctl(SET_SECCOMP, MODE_FILTER, None, 0, 0)
    return ctypes.get_errno() == errno.EFAULT


def keyctl() -> int | None:
    """The number of keyctl for this process; None where it is not known."""
    machine = MACHINES.get(platform.machine()) if sys.maxsize > 2**32 else None
    return None if machine is None else NUMBERS[machine][2]


def program() -> bytes:
    """The program: one block for each architecture, skipped by processes of the others."""
    blocks = [_block(architecture, (*NUMBERS[architecture], *IO_URING)) for architecture in NUMBERS]
    return b"".join([*blocks, _instruction(RETURN, ALLOW)])


def _block(architecture: int, refused: tuple[int, ...]) -> bytes:
    count = len(refused)
    return b"".join(
        [
            _instruction(LOAD, ARCHITECTURE),
            _instruction(JUMP_IF_EQUAL, architecture, otherwise=count + 4),
            _instruction(LOAD, CALL),
            _instruction(AND, 0xFFFFFFFF ^ X32),
            *(_instruction(JUMP_IF_EQUAL, n, then=count - i) for i, n in enumerate(refused)),
            _instruction(RETURN, ALLOW),
            _instruction(RETURN, REFUSE),
        ]
    )


def _instruction(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    """One instruction; `then` and `otherwise` are how many to skip."""
    return struct.pack("HBBI", code, then, otherwise, value)
