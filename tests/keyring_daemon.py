"""A real gnome-keyring on a private D-Bus, in a private home."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import need_tool
from tests.waiting import eventually


class KeyringDaemon:
    """The daemon and its bus. `env` is what a process needs to find them."""

    def __init__(self, home: Path) -> None:
        # Short, because a socket's path may have 107 characters at most.
        self._runtime = tempfile.TemporaryDirectory(prefix="kr")
        self.env = {
            "HOME": str(home),
            "XDG_RUNTIME_DIR": self._runtime.name,
            "XDG_DATA_HOME": str(home / "data"),
        }
        ours = ("DISPLAY", "WAYLAND_DISPLAY", "GNOME_KEYRING_CONTROL")
        self._base = {name: value for name, value in os.environ.items() if name not in ours}
        self.bus = subprocess.Popen(
            [need_tool("dbus-daemon"), "--session", "--nofork", "--nopidfile", "--print-address=1"],
            env={**self._base, **self.env},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.bus.stdout is not None
        self.env["DBUS_SESSION_BUS_ADDRESS"] = self.bus.stdout.readline().strip()
        self.daemon: subprocess.Popen[bytes] | None = None

    def start(self, *, unlocked: bool = True) -> None:
        """Start the daemon and wait until it answers on the bus."""
        command = [need_tool("gnome-keyring-daemon"), "--foreground", "--components=secrets"]
        if unlocked:
            command.append("--unlock")
        self.daemon = subprocess.Popen(
            command,
            env={**self._base, **self.env},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert self.daemon.stdin is not None
        # The password of its "login" keyring, which is made with it the first time: none.
        self.daemon.stdin.write(b"\n")
        self.daemon.stdin.close()
        eventually(self._answers, what="the keyring daemon's name on the bus")

    def hang(self) -> None:
        """Stop the daemon in its tracks: it keeps its name on the bus and answers nothing."""
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let a hung daemon answer again."""
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGCONT)

    def die(self) -> None:
        """End the daemon as a crash would."""
        if self.daemon is not None:
            self.daemon.kill()
            self.daemon.wait()
            self.daemon = None

    def close(self) -> None:
        """End the daemon and the bus, and whatever the bus started by itself."""
        self.die()
        self.bus.terminate()
        self.bus.wait()
        if self.bus.stdout is not None:
            self.bus.stdout.close()
        self._runtime.cleanup()

    def items(self) -> dict[str, str]:
        """Account to secret of what the keyring holds for us, asked without the keyring library."""
        import secretstorage
        from jeepney.io.blocking import open_dbus_connection  # type: ignore[import-untyped] # untyped

        connection = open_dbus_connection(self.env["DBUS_SESSION_BUS_ADDRESS"])
        try:
            found = secretstorage.search_items(connection, {"service": "rebyte"})
            return {item.get_attributes()["username"]: item.get_secret().decode() for item in found}
        finally:
            connection.close()

    def _answers(self) -> bool:
        from jeepney import DBusAddress, new_method_call  # type: ignore[import-untyped] # untyped
        from jeepney.io.blocking import open_dbus_connection

        bus = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
        connection = open_dbus_connection(self.env["DBUS_SESSION_BUS_ADDRESS"])
        try:
            ask = new_method_call(bus, "NameHasOwner", "s", ("org.freedesktop.secrets",))
            return bool(connection.send_and_get_reply(ask, timeout=60).body[0])
        finally:
            connection.close()


@contextmanager
def keyring_daemon(home: Path, *, unlocked: bool = True) -> Iterator[KeyringDaemon]:
    """A daemon that runs while the block does."""
    daemon = KeyringDaemon(home)
    try:
        daemon.start(unlocked=unlocked)
        yield daemon
    finally:
        daemon.close()
