# The `rebyte` of `fork_server.commands`, which see. It imports next to nothing, to start at once.
import _socket
import marshal
import os
import signal
import sys


def main(address, python):
    locale = os.environ.get("LC_ALL") or os.environ.get("LC_CTYPE") or os.environ.get("LANG") or ""
    odd = not locale.lower().replace("-", "").endswith("utf8")
    if odd or any(name.startswith("PYTHON") for name in os.environ):
        os.execv(python, [python, "-m", "rebyte_cli", *sys.argv[1:]])
    umask = os.umask(0)
    os.umask(umask)
    words = [os.fsencode(word) for word in sys.argv[1:]]
    body = marshal.dumps((words, dict(os.environb), os.getcwdb(), umask))
    server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    server.connect(address)
    streams = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2))
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, streams)]
    server.sendmsg([len(body).to_bytes(8, "little")], rights)
    server.sendall(body)
    child = int.from_bytes(server.recv(8), "little")

    def forward(number, _frame):
        os.kill(child, number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, forward)
    status = int.from_bytes(server.recv(8), "little")
    if os.WIFSIGNALED(status):
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status))
