"""A registry server for Feast, started where it is needed.

    with feast_registry.serve("sqlite:///registry.db") as path:
        store = FeatureStore(config=RepoConfig(registry={"registry_type": "remote", "path": path}, ...))

`serve` is for a block of code, `remote` for the life of a process. Both find a server that runs already for the same registry, or
start one; it listens on a Unix socket, needs no port and nobody who operates it, and ends once nobody uses it. Whoever holds a
lease is a user: a process until its end, however that comes, and the processes that were forked from it.

What is the same registry: the same URL or feature_store.yaml (its path and content), in the same working directory, with the same
program and the same user. The server works in the directory, and with the environment, of the process that starts it; what is
relative in a URL is so to that directory, as in Feast. The environment is not looked at: where variables make a difference (`$VAR` in
a feature_store.yaml, credentials), use different URLs or files.

Sockets, locks and logs are in `$XDG_RUNTIME_DIR/feast-registry`, or where there is no such directory in `feast-registry-UID` of the
directory for temporary files. Only their user may enter.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import select
import signal
import socket
import stat
import subprocess
import sysconfig
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO
from urllib.parse import quote

__all__ = ["FeastRegistryError", "Server", "binary", "remote", "serve"]

# What every system has room for in the address of a socket.
_LONGEST_SOCKET_PATH = 103
_SOCKET = "registry.sock"
# In seconds: a day.
_LONGEST_TIME = 86_400
# In seconds, between two looks at a lock.
_PAUSE = 0.01
# In seconds, how long the end of a killed process may take.
_ENDS_WITHIN = 5.0

# Held while a server is looked for or started, and by whoever forks: so a child gets neither half a lease nor a copy of a lock
# that is held, which would stay held with it.
_lock = threading.RLock()
# The leases of `remote`, by the path of their server.
_leases: dict[str, Server] = {}


def _in_child() -> None:
    global _lock
    _lock = threading.RLock()


os.register_at_fork(before=lambda: _lock.acquire(), after_in_parent=lambda: _lock.release(), after_in_child=_in_child)


class FeastRegistryError(RuntimeError):
    """There is no server: the text says why, with the last lines of the server's log if it was started."""


class Server:
    """A lease of a server, which goes on at least until `close`, the end of the `with` block, or the end of this process.

    A process that was forked meanwhile has the lease too, until its own end or `close`.
    """

    path: str
    """Where the server is, for Feast: `unix:///…`."""

    def __init__(self, path: str, lease: int) -> None:
        self.path = path
        self._lease: int | None = lease

    def close(self) -> None:
        """Gives the lease back; once nobody has one, the server ends. May be called again."""
        lease, self._lease = self._lease, None
        if lease is not None:
            # Not unlocked: that would take the lease from forked processes as well.
            os.close(lease)

    def __enter__(self) -> str:
        return self.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def serve(
    url: str | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    linger: float = 10.0,
    timeout: float = 60.0,
) -> Server:
    """A server for a registry: one that runs already, or a new one.

        with feast_registry.serve("sqlite:///registry.db") as path:
            ...

    `path` is what Feast's configuration wants beside `registry_type: remote`. Calls in other threads and processes get the same server.

    Exactly one of `url` and `config`: the URL of a registry, or the path of a feature_store.yaml (or of its folder), whose
    `registry` is served, with its `auth`. Passwords in them are in no command line.

    `linger`: how many seconds the server goes on without a user, so that the next one need not start it. That of the call that
    starts it counts.
    `timeout`: how many seconds to wait for the server.

    If the server is killed, the next call of `serve` or `remote` for this registry, by anybody, starts another one at the same
    path. Clients that are connected find it there, as soon as gRPC tries again: within a few seconds.

    Raises FeastRegistryError if there is no server in time, ValueError if the arguments are wrong, and OSError if the system has no
    room for another process or file.
    """
    if (url is None) == (config is None):
        raise ValueError("name either a URL or a config, and not both")
    if url == "":
        raise ValueError("the URL is empty")
    for name, seconds in [("linger", linger), ("timeout", timeout)]:
        if not 0 <= seconds <= _LONGEST_TIME:
            raise ValueError(f"{name} must be a number of seconds from 0 to {_LONGEST_TIME}")
    program = binary()
    environment = dict(os.environ)
    if url is not None:
        # Not on the command line, which everybody on the machine can read.
        environment["FEAST_REGISTRY_URL"] = url
        identity, where = ["url", url], []
    else:
        assert config is not None
        file = Path(config).absolute()
        identity, where = ["config", str(file), _digest(file)], ["-c", str(file)]
    folder = _folder([*identity, os.getcwd(), *_version(program)])
    listen = ["--listen", f"unix:{folder / _SOCKET}", "--until-unused", str(float(linger))]
    with _lock:
        lease = _get_lease(folder, [str(program), "serve", *listen, *where], environment, timeout)
    # gRPC takes it for a URI.
    return Server("unix://" + quote(str(folder / _SOCKET)), lease)


def remote(
    url: str | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    linger: float = 10.0,
    timeout: float = 60.0,
) -> dict[str, Any]:
    """The setting `registry` of a RepoConfig, for a server that goes on as long as this process.

        RepoConfig(registry=feast_registry.remote("sqlite:///registry.db"), ...)

    The arguments are those of `serve`. The lease is kept until this process ends, and each one that is forked from it. So a
    program whose workers are forked calls this before (gunicorn: with `preload_app`), and makes each FeatureStore after, since
    gRPC's connections do not survive a fork. Processes that are started in another way call this themselves, and get the same server.

    The same registry again is no second lease; if its server was killed meanwhile, there is another one after the call.
    """
    server = serve(url, config=config, linger=linger, timeout=timeout)
    with _lock:
        if _leases.setdefault(server.path, server) is not server:
            server.close()
    return {"registry_type": "remote", "path": server.path}


def binary() -> Path:
    """The program `feast-registry` that was installed with this module.

    The environment variable FEAST_REGISTRY_BINARY names another one.
    """
    here = Path(__file__).absolute()
    if named := os.environ.get("FEAST_REGISTRY_BINARY"):
        candidates = [Path(named).absolute()]
    else:
        folders = [
            # `pip install --target FOLDER`: FOLDER/feast_registry/__init__.py.
            here.parents[1] / "bin",
            # In an environment, or for a user: PREFIX/lib/python3.X/site-packages/feast_registry/__init__.py.
            *(prefix / "bin" for prefix in here.parents[4:5]),
            Path(sysconfig.get_path("scripts")),
        ]
        candidates = [folder / "feast-registry" for folder in folders]
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    raise FeastRegistryError(f"there is no program at {' or '.join(map(str, candidates))}")


# --- the directory of a server ---------------------------------------------------------------------


def _folder(identity: list[str]) -> Path:
    """The directory of the server that is meant, which only this user may enter."""
    name = hashlib.sha256("\0".join(identity).encode(errors="surrogateescape")).hexdigest()[:16]
    user = f"feast-registry-{os.geteuid()}"
    bases = [Path(tempfile.gettempdir()) / user, Path("/tmp") / user]
    if session := _session_folder():
        bases.insert(0, session / "feast-registry")
    # The last one is short.
    fits = (base for base in bases if len(os.fsencode(base / name / _SOCKET)) <= _LONGEST_SOCKET_PATH)
    base = next(fits)
    _make_private(base)
    _make_private(base / name)
    return base / name


def _session_folder() -> Path | None:
    named = Path(os.environ.get("XDG_RUNTIME_DIR") or ".")
    try:
        is_ours = named.is_absolute() and named.stat().st_uid == os.geteuid()
    except OSError:
        return None
    return named if is_ours and os.access(named, os.W_OK | os.X_OK) else None


def _make_private(folder: Path) -> None:
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise FeastRegistryError(
            f"{folder} is not a directory of this user that nobody else may enter (mode 700), so others could answer in a "
            "server's place: remove it, or set TMPDIR to another directory"
        )


def _digest(config: Path) -> str:
    file = config / "feature_store.yaml" if config.is_dir() else config
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        # The server says what is wrong with it.
        return ""


def _version(program: Path) -> list[str]:
    """Tells a program from the one that an update puts in its place."""
    found = program.stat()
    return [str(program), str(found.st_mtime_ns), str(found.st_size)]


# --- the server -----------------------------------------------------------------------------------
#
# A server holds an exclusive lock on `registry.sock.lock` while it lives, and ends when it gets an exclusive one on
# `registry.sock.users`, which it keeps to its end. A lease is a shared lock on that file, which whoever takes it touches.


def _get_lease(folder: Path, command: list[str], environment: dict[str, str], timeout: float) -> int:
    """A descriptor that holds a lease, once the server answers."""
    deadline = time.monotonic() + timeout
    start = _open_lock(folder / "start.lock")
    try:
        _take(start, fcntl.LOCK_EX, deadline, f"another process has been starting a server in {folder}")
        lease = _open_lock(folder / f"{_SOCKET}.users")
        try:
            # A server that has this lock is about to end: what came next would be answered by nobody.
            _take(lease, fcntl.LOCK_SH, deadline, f"the server in {folder} has been ending")
            # A server that waits whether it stays unused sees by this that it did not.
            os.utime(lease)
            _provide(folder, command, environment, deadline)
        except BaseException:
            os.close(lease)
            raise
        return lease
    finally:
        os.close(start)


def _provide(folder: Path, command: list[str], environment: dict[str, str], deadline: float) -> None:
    """Returns once a server answers."""
    has_failed = False
    while not _answers(folder / _SOCKET):
        if _is_locked(folder / f"{_SOCKET}.lock"):
            # It was told to end, or whoever started it was killed meanwhile.
            if time.monotonic() > deadline:
                raise _failure(folder, "a server is there that does not answer")
            time.sleep(_PAUSE)
        elif has_failed:
            raise _failure(folder, "the server ended before it was ready")
        elif _start(folder, command, environment, deadline):
            return
        else:
            has_failed = True


def _start(folder: Path, command: list[str], environment: dict[str, str], deadline: float) -> bool:
    """Starts a server and waits until it is ready; False if it ended before."""
    notify = folder / "notify"
    notify.unlink(missing_ok=True)
    alive, ending = socket.socketpair()
    with alive, ending, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, _open_log(folder) as log:
        log.truncate(0)
        # A server listens before it has opened the registry; afterwards it says READY, as it would to systemd.
        ready.bind(str(notify))
        # The shell ends at once and leaves the server to init: nobody here has to wait for it, and nobody who waits for any
        # child takes it for a worker.
        shell = subprocess.Popen(
            ["/bin/sh", "-c", '"$@" &', "sh", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**environment, "NOTIFY_SOCKET": str(notify)},
            start_new_session=True,
            # Which is closed when the server has ended, however that was.
            pass_fds=[ending.fileno()],
        )
        ending.close()
        shell.wait()
        poll = select.poll()
        poll.register(ready, select.POLLIN)
        poll.register(alive, select.POLLIN)
        is_done = False
        try:
            while events := dict(poll.poll(max(0.0, deadline - time.monotonic()) * 1000)):
                is_ready = ready.fileno() in events and b"READY=1" in ready.recv(4096)
                is_done = is_ready or alive.fileno() in events
                if is_done:
                    return is_ready
        finally:
            notify.unlink(missing_ok=True)
            if not is_done:
                # The time is over, or the user does not want to wait any more.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(shell.pid, signal.SIGKILL)
                # Or whoever comes next would be answered by it once more.
                alive.settimeout(_ENDS_WITHIN)
                with contextlib.suppress(OSError):
                    alive.recv(1)
    raise _failure(folder, "the server was not ready in time, and was stopped")


def _open_log(folder: Path) -> BinaryIO:
    return open(folder / "log", "ab", opener=lambda path, flags: os.open(path, flags, 0o600))


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except BlockingIOError:
            # It has more new connections than it can take at the moment.
            return True
        return True


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _take(file: int, kind: int, deadline: float, otherwise: str) -> None:
    while not _try(file, kind):
        if time.monotonic() > deadline:
            raise FeastRegistryError(f"{otherwise}, for longer than the timeout")
        time.sleep(_PAUSE)


def _try(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_locked(path: Path) -> bool:
    file = _open_lock(path)
    try:
        return not _try(file, fcntl.LOCK_EX)
    finally:
        os.close(file)


def _failure(folder: Path, what: str) -> FeastRegistryError:
    log = folder / "log"
    lines = log.read_text(errors="replace").splitlines()[-20:] if log.exists() else []
    return FeastRegistryError("\n".join([f"{what}; its log is {log}", *lines]))
