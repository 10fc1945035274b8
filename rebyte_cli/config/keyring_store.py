"""The keyring of the operating system: bounded in time, and only when it is a real one."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ..errors import KeyProblem, Next
from .terminal import prompts_refused, terminal_restored

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

T = TypeVar("T")

SERVICE = "rebyte"
# A user at a terminal may be asked to unlock it; a script had better fail soon.
SECONDS_UNATTENDED = 4.0
SECONDS_ON_A_TERMINAL = 60.0

WAYS_OUT = (
    "export REBYTE_API_KEY=…  (nothing is stored)\n"
    + Next("profile", "set", "NAME", "key_command='pass show rebyte'")
    + "  (a program prints the key)\n"
    + Next("auth", "login", "--insecure-storage")
    + "  (a file that only you can read)"
)


class KeyringStore(NamedTuple):
    """The keyring: `interactive` when a user can unlock it; `note` reports when it takes long.

    Every method raises KeyProblem, with the ways out as its hint, when the keyring is absent,
    locked, silent, or not one that protects a key, and for whatever else a backend raises. A
    backend that prompts cannot do so unless `interactive`, and never leaves the terminal without
    echo.
    """

    interactive: bool
    note: Callable[[str], None] | None = None

    def check(self) -> str:
        """The dotted name of the backend to use, without asking it for anything."""
        return self._ask(lambda: _name(_backend(None)))

    def fetch(self, account: str, *, backend: str | None = None) -> str | None:
        """The key of an account, or None. `backend` is what `store` returned."""
        return self._ask(lambda: _backend(backend).get_password(SERVICE, account))

    def store(self, account: str, key: str) -> str:
        """Store a key and read it back. Returns the dotted name of the backend that has it."""

        def work() -> str:
            backend = _backend(None)
            backend.set_password(SERVICE, account, key)
            if backend.get_password(SERVICE, account) != key:
                raise KeyProblem(
                    "the keyring accepted the key but does not return it", hint=WAYS_OUT
                )
            return _name(backend)

        return self._ask(work)

    def remove(self, account: str, *, backend: str | None = None) -> None:
        """Remove the key of an account, if there is one."""

        def work() -> None:
            keyring = _backend(backend)
            if keyring.get_password(SERVICE, account) is None:
                return
            keyring.delete_password(SERVICE, account)
            if keyring.get_password(SERVICE, account) is not None:
                raise KeyProblem("the keyring did not remove the key")

        self._ask(work)

    def _ask(self, work: Callable[[], T]) -> T:
        seconds = SECONDS_ON_A_TERMINAL if self.interactive else SECONDS_UNATTENDED
        prompts = nullcontext() if self.interactive else prompts_refused()
        with suppress(ImportError):  # `work` reports it; on a busy machine, it takes seconds
            import keyring  # noqa: F401
        try:
            with terminal_restored(), prompts:
                return call_with_timeout(seconds, work, told_after=1.0, tell=self._tell)
        except TimeoutError:
            raise KeyProblem(
                f"the keyring did not answer within {seconds:g} s; it may be locked", hint=WAYS_OUT
            ) from None
        except KeyProblem:
            raise
        # Backends raise what their libraries raise: D-Bus errors, OSError, even bare Exception.
        except (Exception, SystemExit) as problem:
            raise KeyProblem(_words(problem), hint=WAYS_OUT) from None

    def _tell(self) -> None:
        if self.interactive and self.note is not None:
            self.note("Waiting for the keyring; it may be asking to be unlocked")


def _backend(recorded: str | None) -> KeyringBackend:
    """The backend to use, once it was judged fit.

    The one that took the key is loaded by its name, which is faster than searching all that are
    installed. `PYTHON_KEYRING_BACKEND` comes first.
    """
    import logging
    import os

    # keyring logs whole tracebacks of backends that it could not load, onto a bare stderr.
    logging.getLogger("keyring").addHandler(logging.NullHandler())
    by_hand = "PYTHON_KEYRING_BACKEND" in os.environ
    if recorded and recorded.startswith("keyring.backends.") and not by_hand:
        import importlib

        module, _, name = recorded.rpartition(".")
        try:
            made: KeyringBackend = getattr(importlib.import_module(module), name)()
        except (ImportError, AttributeError, RuntimeError):
            pass  # an update renamed it, or the file comes from another machine: search
        else:
            return _judged(made)
    try:
        import keyring

        return _judged(keyring.get_keyring())
    except (ImportError, AttributeError, ValueError, TypeError) as problem:
        if not by_hand:
            raise
        raise KeyProblem(
            f"cannot load the backend in PYTHON_KEYRING_BACKEND ({_kind(problem)})",
            hint=WAYS_OUT,
        ) from None


def _name(backend: KeyringBackend) -> str:
    return f"{type(backend).__module__}.{type(backend).__qualname__}"


def _judged(backend: KeyringBackend) -> KeyringBackend:
    """The backend itself, or the first usable one of a chain; KeyProblem when none is."""
    from keyring.backends.chainer import ChainerBackend

    links = list(backend.backends) if isinstance(backend, ChainerBackend) else [backend]
    reasons = [_refusal(link) for link in links]
    for link, reason in zip(links, reasons, strict=True):
        if reason is None:
            return link
    raise KeyProblem(reasons[0] or "there is no keyring on this machine", hint=WAYS_OUT)


def _refusal(backend: KeyringBackend) -> str | None:
    """Why a backend is not fit to keep a key, or None. Its base classes count too."""
    for kind in type(backend).__mro__:
        if kind.__module__ == "keyring.backends.fail":
            return "there is no keyring on this machine that can be used"
        if kind.__module__ == "keyring.backends.null":
            return "the keyring is switched off (the null backend)"
        if kind.__module__.startswith("keyrings.alt") or "plaintext" in kind.__name__.lower():
            return f"the keyring backend {kind.__module__}.{kind.__name__} does not protect keys"
    return None


def _words(problem: BaseException) -> str:
    name = _kind(problem)
    if isinstance(problem, EOFError):
        return "the keyring asks for a password, and there is no terminal to ask on"
    if "Locked" in name or "locked" in str(problem).lower():
        return "the keyring is locked"
    return f"the keyring cannot be used ({name})"


def _kind(problem: BaseException) -> str:
    # The class alone: a backend's message may repeat what it was handed, which is the key.
    return type(problem).__name__


# A time limit for calls that may never return


def call_with_timeout(
    seconds: float,
    work: Callable[[], T],
    *,
    told_after: float = math.inf,
    tell: Callable[[], None] = lambda: None,
) -> T:
    """What `work` returns or raises, or TimeoutError when it takes longer than `seconds`.

    `tell` is called once when it has taken `told_after` seconds. The work continues in a daemon
    thread after the limit: nothing can end a call that hangs in a library, but such a thread
    does not keep the process from ending.
    """
    from concurrent.futures import Future, wait
    from threading import Thread

    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(work())
        except BaseException as problem:
            answer.set_exception(problem)

    Thread(target=run, daemon=True, name="bounded").start()
    quiet = min(seconds, told_after)
    if not wait([answer], quiet).done and quiet < seconds:
        tell()
    return answer.result(seconds - quiet)
