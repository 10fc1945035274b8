# The `rebyte` of `fork_server.commands`, which see. It imports next to nothing, to start at once.
import _signal
import _socket
import marshal
import os
import sys


def needs_an_interpreter(environment):
    """Whether the environment asks for what only a new interpreter does."""
    get = environment.get
    locale = get("LC_ALL") or get("LC_CTYPE") or get("LANG") or ""
    odd = not locale.lower().replace("-", "").endswith("utf8")
    return odd or any(name.startswith("PYTHON") for name in environment)


def start(address, words, environment, folder, umask, streams, terminal=False, kind="command"):
    """Have a process run: the connection on which its process id and its status will come.

    `terminal` makes standard input, which no other session may have, its controlling terminal.
    `kind` is "command", or what else fork_server.py can run.
    """
    body = marshal.dumps((words, environment, folder, umask, terminal, kind))
    server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    server.connect(address)
    numbers = b"".join(number.to_bytes(4, sys.byteorder) for number in streams)
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, numbers)]
    server.sendmsg([len(body).to_bytes(8, "little")], rights)
    server.sendall(body)
    return server


def give_up_terminal():
    """Let another session have the terminal of this one."""
    import fcntl
    import termios

    for number in (_signal.SIGHUP, _signal.SIGCONT):  # what the kernel sends then
        _signal.signal(number, _signal.SIG_IGN)
    fcntl.ioctl(0, termios.TIOCNOTTY)


def main(address, python):
    """Run the command with the arguments of this process, and end as it does."""
    if needs_an_interpreter(os.environ):
        changes = os.environ.pop("FORKED_CHANGES", "")
        code = f"{changes}\nfrom rebyte_cli.__main__ import main\nmain()"
        how = ["-c", code] if changes else ["-m", "rebyte_cli"]
        os.execv(python, [python, *how, *sys.argv[1:]])
    words = [os.fsencode(word) for word in sys.argv[1:]]
    has_terminal = os.getsid(0) == os.getpid() and os.isatty(0)
    if has_terminal:  # nothing but this command runs there
        give_up_terminal()
    forwarded = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGQUIT)
    # One that comes early waits until there is a process to pass it on to.
    _signal.pthread_sigmask(_signal.SIG_BLOCK, forwarded)
    umask = os.umask(0)
    os.umask(umask)
    server = start(address, words, dict(os.environb), os.getcwdb(), umask, (0, 1, 2), has_terminal)
    child = int.from_bytes(server.recv(8), "little")

    def forward(number, _frame):
        os.kill(child, number)

    for number in forwarded:
        _signal.signal(number, forward)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, forwarded)
    status = int.from_bytes(server.recv(8), "little")
    if os.WIFSIGNALED(status):
        _signal.signal(os.WTERMSIG(status), _signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status))
