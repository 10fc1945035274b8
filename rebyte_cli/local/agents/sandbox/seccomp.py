"""The system calls that the kernel refuses inside the jail, as a seccomp program for bubblewrap.

keyctl, add_key and request_key reach every key of the user, whatever the namespaces, and syslog the
kernel's log. io_uring, userfaultfd, bpf and perf_event_open, which attacks on the kernel often use,
are refused as container engines refuse them, and io_setup, which takes from what all programs of
the machine have together.
Of sockets, only those are made that programs need: one of AF_VSOCK would reach the host of a
virtual machine. With what takes a descriptor from another process or writes to its memory, a
program that is checked could tell in bubblewrap's place how its check has ended. With a lease of a
file that the jail shows, it could make every other program of the user wait that opens this file. A
refused call answers as a kernel without it does, and programs expect that. Of ioctl, only those
requests reach a file that programs need, and others are answered as by a file that does not know
them: by those of some file systems, an ordinary user locks the encrypted files of all programs, or
makes folders that nothing removes, such as subvolumes of btrfs.
"""

from __future__ import annotations

import errno
import os
import struct
import sys

# The kernel's number of an architecture, and there: add_key, request_key, keyctl, userfaultfd,
# syslog, perf_event_open, bpf, process_vm_writev, io_setup, and the last two for x32. ptrace is
# allowed: debuggers need it, and what looks for leaks in tests.
# A process can use the calls of each architecture that its processor runs, so all are refused.
X86_64, I386, AARCH64, ARM = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028
RISCV64, RISCV32, LOONGARCH64 = 0xC00000F3, 0x400000F3, 0xC0000102
PPC64LE, PPCLE, S390X, S390 = 0xC0000015, 0x40000014, 0x80000016, 0x00000016
GENERIC = AARCH64, RISCV64, RISCV32, LOONGARCH64  # with the numbers of asm-generic
POWER = PPC64LE, PPCLE
NUMBERS = {
    X86_64: (248, 249, 250, 323, 103, 298, 321, 311, 206, 540, 543),
    I386: (286, 287, 288, 374, 103, 336, 357, 348, 245),
    ARM: (309, 310, 311, 388, 103, 364, 386, 377, 243),
    **dict.fromkeys(GENERIC, (217, 218, 219, 282, 116, 241, 280, 271, 0)),
    **dict.fromkeys(POWER, (269, 270, 271, 364, 103, 319, 361, 352, 227)),
    **dict.fromkeys((S390X, S390), (278, 279, 280, 355, 103, 331, 351, 341, 243)),
}
# socket, socketpair, and, where there is one, socketcall: it makes sockets too, and its family is
# in memory, which no filter can read. On s390x, glibc uses it for every socket: none is refused.
SOCKETS: dict[int, tuple[int, ...]] = {
    X86_64: (41, 53),
    I386: (359, 360, 102),
    **dict.fromkeys(GENERIC, (198, 199)),
    ARM: (281, 288),
    **dict.fromkeys(POWER, (326, 333, 102)),
}
FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET and AF_INET6
NETLINK, ROUTE = 16, 0  # which tells a program its network interfaces
MAKING_SOCKETS = (1, 8)  # of what socketcall does: SYS_SOCKET and SYS_SOCKETPAIR
# io_uring_setup, io_uring_enter, io_uring_register, pidfd_getfd, and file_setattr, which does what
# the request FS_IOC_FSSETXATTR of ioctl does.
SAME_EVERYWHERE = (425, 426, 427, 438, 469)
# fcntl, and fcntl64 of 32-bit programs; and of what it does, F_SETLEASE and F_SETDELEG. On s390x,
# the command is in the other half of the argument: none is refused.
FCNTL: dict[int, tuple[int, ...]] = {
    X86_64: (72,),
    **dict.fromkeys((I386, ARM), (55, 221)),
    **dict.fromkeys(GENERIC, (25,)),
    PPC64LE: (55,),
    PPCLE: (55, 204),
}
LEASES = (1024, 1040)
IOCTL: dict[int, tuple[int, ...]] = {
    X86_64: (16, 514),  # the second for x32
    **dict.fromkeys(GENERIC, (29,)),
    **dict.fromkeys((I386, ARM, *POWER, S390X, S390), (54,)),
}
# Of its requests, the bits of type and number, and those of programs: FICLONE, FICLONERANGE and
# FIDEDUPERANGE (`cp --reflink`), FS_IOC_GETFLAGS, FS_IOC_FIEMAP and FS_IOC_FSGETXATTR.
REQUEST, REQUESTS = 0xFFFF, (0x9409, 0x940D, 0x9436, 0x6601, 0x660B, 0x581F)
# The bits of the type, and those of terminals (and of FIOCLEX, FIONBIO...) and of sockets.
TYPE, TYPES = 0xFF00, (0x5400, 0x8900)
# On POWER also FIOASYNC, FIONBIO, FIONREAD and FIOQSIZE, a second type of terminals, and FIONCLEX,
# which only other bits tell from FS_IOC_SETFLAGS.
POWER_REQUESTS, POWER_TYPES = (0x667D, 0x667E, 0x667F, 0x6680), (0x7400,)
POWER_FIONCLEX = (0x20006602,)
MACHINES = {
    "x86_64": X86_64, "aarch64": AARCH64, "riscv64": RISCV64, "loongarch64": LOONGARCH64,
    "ppc64le": PPC64LE, "s390x": S390X,
}  # fmt: skip

# Instructions of classic BPF, and where the call's number, architecture and arguments are in its
# input. Each of those arguments is an int, the lower half on the machines of `SOCKETS`.
LOAD, AND, JUMP_IF_EQUAL, RETURN = 0x20, 0x54, 0x15, 0x06
CALL, ARCHITECTURE, FIRST, SECOND, THIRD = 0, 4, 16, 24, 32
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | errno.ENOSYS
NO_FAMILY = 0x00050000 | errno.EAFNOSUPPORT
NO_COMMAND = 0x00050000 | errno.EINVAL
NO_REQUEST = 0x00050000 | errno.ENOTTY
X32 = 0x40000000  # a bit in the number: the call of x86_64, with 32-bit pointers

SET_SECCOMP, MODE_FILTER = 22, 2


def is_available() -> bool:
    """Whether the kernel takes such a program, and the calls of this machine are known."""
    import ctypes

    if os.uname().machine not in MACHINES:
        return False
    # Without a program, the call fails with EFAULT where the kernel would take one.
    ctypes.CDLL(None, use_errno=True).prctl(SET_SECCOMP, MODE_FILTER, None, 0, 0)
    return ctypes.get_errno() == errno.EFAULT


def keyctl() -> int | None:
    """The number of keyctl for this process; None where it is not known."""
    machine = MACHINES.get(os.uname().machine) if sys.maxsize > 2**32 else None
    return None if machine is None else NUMBERS[machine][2]


def program() -> bytes:
    """The program: one block for each architecture, skipped by processes of the others."""
    return b"".join([*map(_block, NUMBERS), _instruction(RETURN, ALLOW)])


def _block(architecture: int) -> bytes:
    sockets = SOCKETS.get(architecture, ())
    calls = dict.fromkeys((*NUMBERS[architecture], *SAME_EVERYWHERE), "refuse")
    calls |= dict.fromkeys(sockets[:2], "family") | dict.fromkeys(sockets[2:], "socketcall")
    calls |= dict.fromkeys(FCNTL.get(architecture, ()), "fcntl")
    calls |= dict.fromkeys(IOCTL[architecture], "ioctl")
    lower = 4 if architecture in (S390X, S390) else 0  # where that half of an argument is
    is_power = architecture in POWER
    # Labels, and instructions with those to jump to, where one is true and where it is not.
    lines: list[str | tuple[int, int, str, str]] = [
        (LOAD, ARCHITECTURE, "", ""),
        (JUMP_IF_EQUAL, architecture, "", "end"),
        (LOAD, CALL, "", ""),
        (AND, 0xFFFFFFFF ^ X32, "", ""),
        *((JUMP_IF_EQUAL, number, label, "") for number, label in calls.items()),
        (RETURN, ALLOW, "", ""),
        "family",
        (LOAD, FIRST, "", ""),
        *((JUMP_IF_EQUAL, family, "allow", "") for family in FAMILIES),
        (JUMP_IF_EQUAL, NETLINK, "", "no family"),
        (LOAD, THIRD, "", ""),
        (JUMP_IF_EQUAL, ROUTE, "allow", "no family"),
        "socketcall",
        (LOAD, FIRST, "", ""),
        *((JUMP_IF_EQUAL, one, "refuse", "") for one in MAKING_SOCKETS),
        (RETURN, ALLOW, "", ""),
        "ioctl",
        (LOAD, SECOND + lower, "", ""),
        *((JUMP_IF_EQUAL, one, "allow", "") for one in POWER_FIONCLEX * is_power),
        (AND, REQUEST, "", ""),
        *((JUMP_IF_EQUAL, one, "allow", "") for one in REQUESTS + POWER_REQUESTS * is_power),
        (AND, TYPE, "", ""),
        *((JUMP_IF_EQUAL, one, "allow", "") for one in TYPES + POWER_TYPES * is_power),
        (RETURN, NO_REQUEST, "", ""),
        "fcntl",
        (LOAD, SECOND, "", ""),
        *((JUMP_IF_EQUAL, one, "no command", "") for one in LEASES),
        "allow",
        (RETURN, ALLOW, "", ""),
        "refuse",
        (RETURN, REFUSE, "", ""),
        "no family",
        (RETURN, NO_FAMILY, "", ""),
        "no command",
        (RETURN, NO_COMMAND, "", ""),
        "end",
    ]
    instructions = [line for line in lines if not isinstance(line, str)]
    labels = {
        line: sum(not isinstance(before, str) for before in lines[:place])
        for place, line in enumerate(lines)
        if isinstance(line, str)
    }
    return b"".join(
        _instruction(code, value, *(labels[to] - place if to else 0 for to in jumps))
        for place, (code, value, *jumps) in enumerate(instructions, 1)
    )


def _instruction(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    """One instruction; `then` and `otherwise` are how many to skip."""
    return struct.pack("HBBI", code, then, otherwise, value)
