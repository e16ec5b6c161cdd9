"""Senders that stall or go away in the middle of a body cost nobody else anything."""

import socket

import pytest
from support import PATH, Service, count, event_body, signed_headers

pytestmark = pytest.mark.database

# Within which everything is answered (contract, "What is answered").
ANSWER_SECONDS = 8
BODY = event_body("evt_slow")


def begin(service: Service, body: bytes) -> socket.socket:
    """Send a signed request for BODY of which only `body` has been sent yet."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(ANSWER_SECONDS)
    connection.connect(str(service.socket))
    headers = signed_headers(BODY) | {"host": "receiver", "content-length": str(len(BODY))}
    lines = [f"POST {PATH} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    connection.sendall("\r\n".join(lines).encode() + body)
    return connection


def read_to_the_end(connection: socket.socket) -> bytes:
    """What is answered until the connection is closed. Raises TimeoutError where it stays open."""
    answer = b""
    while part := connection.recv(4096):
        answer += part
    return answer


@pytest.mark.parametrize("sent", [0, 1, len(BODY) - 1])
def test_a_truncated_body_is_not_stored(service: Service, url: str, sent: int) -> None:
    with begin(service, BODY[:sent]) as connection:
        connection.shutdown(socket.SHUT_WR)
        assert not read_to_the_end(connection).startswith(b"HTTP/1.1 200")
    assert service.deliver(event_body("evt_next")).status_code == 200
    assert count(url, "webhook_deliveries") == 1
    lines = service.lines()
    assert [line["outcome"] for line in lines if line["event"] == "webhook"] == ["accepted"]
    assert [line for line in lines if line["level"] == "error"] == []


def test_stalled_bodies_are_given_up_and_closed(service: Service, url: str) -> None:
    stalled = [begin(service, BODY[:sent]) for sent in (0, 1, len(BODY) - 1)]
    # Meanwhile the others are served.
    assert service.deliver(event_body("evt_next")).json()["status"] == "accepted"
    for connection in stalled:
        with connection:
            assert read_to_the_end(connection).startswith(b"HTTP/1.1 503")
    assert service.deliver(event_body("evt_last")).json()["status"] == "accepted"
    assert count(url, "webhook_deliveries") == 2


def test_a_body_in_small_pieces_is_taken(service: Service, url: str) -> None:
    with begin(service, b"") as connection:
        for number in range(len(BODY)):
            connection.sendall(BODY[number : number + 1])
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    assert count(url, "webhook_deliveries") == 1
