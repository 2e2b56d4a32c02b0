"""The first program in a box: it makes itself small and becomes the agent's program. It imports nothing of Torch's.

Run by ``python -I -S launcher.py ORDER… -- WORD…`` with what it is to do before: ``terminal`` and ``stops`` (see
:func:`_take_terminal`), ``landlock``, with ``write=PATH`` for all that the program may write (without one, it may all),
``proxy=PORT:SOCKET`` (where this port of the loopback is to lead).
"""

import _signal as signal  # type: ignore[import-not-found]  # `signal` takes three times as long
import os
import sys


def main() -> None:
    end = sys.argv.index("--")
    orders, words = sys.argv[1:end], sys.argv[end + 1 :]
    given = [order.partition("=") for order in orders]
    for port, _, proxy in (value.partition(":") for name, _, value in given if name == "proxy"):
        _forward(int(port), proxy)
    if "terminal" in orders:
        _take_terminal(can_stop="stops" in orders)
    if "landlock" in orders:
        _restrict([value for name, _, value in given if name == "write"])
    try:
        os.execvp(words[0], words)
    except OSError as error:
        print(f"cannot start {words[0]} in its box: {error.strerror}", file=sys.stderr)
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)


def _take_terminal(*, can_stop: bool) -> None:
    """Have the terminal's keys reach the program and not bubblewrap, which Ctrl-C would end, and the pane with it.

    Nobody here would ever continue a program that Ctrl-Z stopped, unless it is a shell, which sees to that itself.
    """
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    os.setpgid(0, 0)
    os.tcsetpgrp(terminal, os.getpgrp())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTTOU})
    os.close(terminal)
    if not can_stop:
        signal.signal(signal.SIGTSTP, signal.SIG_IGN)


# ── the network ──────────────────────────────────────────────────────────────────────────────────────────────────


def _forward(port: int, proxy: str) -> None:
    """Have a process beside the program lead each connection to this port of the loopback to the proxy's socket."""
    import socket

    listener = socket.create_server(("127.0.0.1", port), backlog=64)
    if os.fork():
        listener.close()
        os.wait()
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    nothing = os.open(os.devnull, os.O_RDWR)
    for handle in (0, 1, 2):
        os.dup2(nothing, handle)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        client, _ = listener.accept()
        if not os.fork():
            _carry(client, proxy)
            os._exit(0)
        client.close()


def _carry(client, proxy) -> None:  # type: ignore[no-untyped-def]
    """Carry what comes from one side to the other, until both have ended."""
    import select
    import socket

    outside = socket.socket(socket.AF_UNIX)
    try:
        outside.connect(proxy)
    except OSError:
        return
    other = {client: outside, outside: client}
    open_ends = [client, outside]
    while open_ends:
        for end in select.select(open_ends, [], [])[0]:
            try:
                data = end.recv(65536)
                other[end].sendall(data)
                if not data:
                    open_ends.remove(end)
                    other[end].shutdown(socket.SHUT_WR)
            except OSError:
                return


# ── Landlock ─────────────────────────────────────────────────────────────────────────────────────────────────────

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same numbers on every architecture
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REFER, _TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 13, 1 << 14
_ALL_1 = (1 << 13) - 1
_READS = _EXECUTE | _READ_FILE | _READ_DIR
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_SCOPE_ABSTRACT_SOCKETS = 1 << 0
_VERSION = 1


def _restrict(write: "list[str]") -> None:
    """Allow the program to write below these paths alone, and to reach no abstract socket; as far as the kernel can."""
    import ctypes

    kernel = ctypes.CDLL(None, use_errno=True)
    newest = kernel.syscall(_CREATE, None, 0, _VERSION)
    if newest < 1:
        return
    handled = 0 if not write else _ALL_1 | (_REFER if newest >= 2 else 0) | (_TRUNCATE if newest >= 3 else 0)
    scoped = _SCOPE_ABSTRACT_SOCKETS if newest >= 6 else 0
    if not (handled or scoped):
        return
    rules = (ctypes.c_uint64 * 3)(handled, 0, scoped)
    size = 24 if newest >= 6 else 16 if newest >= 4 else 8
    ruleset = kernel.syscall(_CREATE, rules, size, 0)
    if ruleset < 0:
        return
    kernel.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    for path, allowed in [("/", _READS), *((path, handled) for path in write)] if handled else []:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        if not os.path.isdir(path):
            allowed &= _OF_A_FILE
        rule = (ctypes.c_uint32 * 3)(allowed & handled & 0xFFFFFFFF, 0, place)
        kernel.syscall(_ADD, ruleset, 1, rule, 0)
        os.close(place)
    kernel.syscall(_RESTRICT, ruleset, 0)
    os.close(ruleset)


if __name__ == "__main__":
    main()
