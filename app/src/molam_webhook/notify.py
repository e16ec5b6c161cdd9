"""The service manager's notification socket (sd_notify)."""

import contextlib
import faulthandler
import os
import socket

# The manager ends a process that does not say in such a time that it is well, and the process prints where it stands.
WATCHDOG_SECONDS = 30
BEAT_SECONDS = 5


class Unreachable(Exception):
    """The service manager cannot be told anything."""


def ready() -> None:
    """Tell the service manager that we serve, and that it can count on a beat from now on."""
    faulthandler.enable()
    notify(f"READY=1\nWATCHDOG_USEC={WATCHDOG_SECONDS * 1_000_000}")


def beat() -> None:
    """Tell the service manager that we are well; to be said every `BEAT_SECONDS`."""
    # A manager that stands still must not make us stand still.
    with contextlib.suppress(BlockingIOError):
        notify("WATCHDOG=1", socket.MSG_DONTWAIT)


def notify(state: str, flags: int = 0) -> None:
    """Tell the service manager `state`, such as READY=1; does nothing where there is none. `flags` are send(2)'s.

    Raises Unreachable, or BlockingIOError where the flags ask not to wait.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    # A leading @ names an abstract socket, which the kernel knows by a NUL.
    name = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        try:
            sender.sendto(state.encode(), flags, name)
        except BlockingIOError:
            raise
        except OSError as error:
            raise Unreachable(f"NOTIFY_SOCKET {address}: {error.strerror}") from error
