"""A run in the queue: the first part of a supervisor's life, in as little memory as possible.

A thousand runs may wait. Each has a process, which holds the lock of the run and the environment
that the agent will get. So this module imports only what Python has loaded anyway: a waiting
process takes 3 MB, against 9 MB with the supervisor's modules.
"""

from __future__ import annotations

import os
import sys
import time

from ....system.locks import flock
from ....system.process_identity import identity
from ..limits.account_limit import AccountLimit

SLOT_LOOK_SECONDS = 0.1


def main() -> None:
    """Wait, then look after the run.

    Arguments: STATE_DIR PROMPT_ID LOCK_DESCRIPTOR SLOTS ACCOUNT [LOCK_FILE]…, the last for the
    runs before this one in its workspace. The account is that whose usage limit is waited for, or
    `-`. Without slots, do what a supervisor that was killed left.
    """
    state_dir, prompt_id, lock, slots, account, *before = sys.argv[1:]
    if slots == "0":
        from .run_results import finish

        finish(state_dir, prompt_id)
        return
    # Cancel kills this process, after it has recorded the end of the run.
    os.ftruncate(int(lock), 0)
    os.pwrite(int(lock), identity(os.getpid()).encode(), 0)
    for lock_file in before:
        _wait_for(lock_file)
    limit, probe = AccountLimit(state_dir, account), None
    while True:
        if account != "-":
            probe = limit.wait()
        slot = _take_slot(f"{state_dir}/slots", int(slots))
        if account == "-" or probe is not None or limit.seconds_left() is None:
            break
        os.close(slot)  # another run met the limit meanwhile
    from .supervisor import look_after

    look_after(state_dir, prompt_id, int(lock), probe)


def _wait_for(lock_file: str) -> None:
    """Wait until the lock of another run is free."""
    try:
        descriptor = os.open(lock_file, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    flock(descriptor, shared=True)
    os.close(descriptor)


def _take_slot(folder: str, count: int) -> int:
    """Take one of the slots for running agents; those who wait are served in turn. Its descriptor.

    It is held until this process ends, so that at any moment no more runs than slots count as
    running.
    """
    os.makedirs(folder, mode=0o700, exist_ok=True)
    queue = os.open(f"{folder}/queue", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    flock(queue)
    while (slot := _free_slot(folder, count)) is None:
        time.sleep(SLOT_LOOK_SECONDS)
    os.close(queue)
    return slot


def _free_slot(folder: str, count: int) -> int | None:
    """A slot that was free, and that this process holds now."""
    for number in range(count):
        path = f"{folder}/{number}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            flock(descriptor, wait=False)
        except BlockingIOError:
            os.close(descriptor)
        else:
            return descriptor
    return None
