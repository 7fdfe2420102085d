"""Python runs this at its start where this folder is on its path: what a process does is written down.

A JSON line for each event goes to the file that ROOST_WATCH names: sockets, processes, what is opened for writing,
made, moved or removed, and what of the folder ROOST_WATCH_FOLDER is opened or executed. Children inherit both names.
"""

import json
import os
import sys

_WRITES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")
_PROCESSES = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.startfile")
# What reaches out. A library binds a socket once, to see whether the machine knows IPv6.
_SOCKETS = (
    *("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.getnameinfo"),
    *("socket.gethostbyname", "socket.gethostbyaddr"),
)
_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def _watch(log: int, folder: str) -> None:
    def say(kind: str, what: object) -> None:
        line = {"kind": kind, "what": str(what), "pid": os.getpid()}
        os.write(log, (json.dumps(line) + "\n").encode())

    def hear(event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, str | bytes):
                where = os.path.abspath(os.fsdecode(path))
                if (flags or 0) & _TO_WRITE:
                    say("write", where)
                elif where.startswith(folder):
                    say("read", where)
        elif event == "exec":
            if getattr(arguments[0], "co_filename", "").startswith(folder):
                say("executed", arguments[0].co_filename)
        elif event in _SOCKETS:
            say("socket", (event, arguments[1:] if event == "socket.connect" else arguments))
        elif event in _WRITES:
            if not isinstance(arguments[0], int):
                say("write", os.path.abspath(os.fsdecode(arguments[0])))
        elif event in _PROCESSES:
            say("process", arguments[0] or arguments[1][0])

    sys.addaudithook(hear)


if "ROOST_WATCH" in os.environ:
    _watch(
        os.open(os.environ["ROOST_WATCH"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        os.environ["ROOST_WATCH_FOLDER"],
    )
