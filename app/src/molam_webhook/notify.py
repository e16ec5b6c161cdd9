"""The service manager's notification socket (sd_notify)."""

import os
import socket


def notify(state: str) -> None:
    """Tell the service manager `state`, such as READY=1; does nothing where none listens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    # A leading @ names an abstract socket, which the kernel knows by a NUL.
    name = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.sendto(state.encode(), name)
