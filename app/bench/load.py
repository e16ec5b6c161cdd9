"""A load generator that costs little: it shares the cores with what it measures.

Every request is an event of its own, signed before the clock starts. One process, one epoll, one request at a time
on each connection. Without a rate, a connection sends again as soon as it is answered. With one, requests are due at
even intervals and a latency counts from when its request was due, so that a stall is not hidden by waiting for it.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import ssl
import sys
import time
from collections import Counter, deque
from pathlib import Path

import orjson
from molam_webhook import signature

HOST = "bench.localhost"
PATH = "/molam/webhook"
WARM_UP_SECONDS = 1.0


class Connection:
    """One connection to `target`: `unix:PATH`, `http:PORT` or `https:PORT`, the last two on the loopback address."""

    def __init__(self, target: str, context: ssl.SSLContext) -> None:
        self._target = target
        self._context = context
        self._received = b""
        self.due = 0.0
        self.request = -1
        self.open()

    def open(self) -> None:
        scheme, _, place = self._target.partition(":")
        if scheme == "unix":
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(place)
        else:
            self.socket = socket.create_connection(("127.0.0.1", int(place)))
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if scheme == "https":
            self.socket = self._context.wrap_socket(self.socket, server_hostname=HOST)
        self.socket.setblocking(False)
        self._received = b""

    def read(self) -> tuple[int, bool] | None:
        """The status of a whole answer and whether the server keeps the connection; None while more is to come."""
        try:
            chunk = self.socket.recv(65536)
        except (BlockingIOError, ssl.SSLWantReadError):
            return None
        if not chunk:
            raise ConnectionError("the server closed the connection")
        received = self._received = self._received + chunk
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = received[:end].lower()
        length = head.find(b"content-length:")
        if length < 0:
            raise ConnectionError("an answer without a length")
        size = int(head[length + 15 :].split(b"\r\n", 1)[0])
        if len(received) < end + 4 + size:
            return None
        self._received = b""
        return int(head[9:12]), b"connection: close" not in head


def make_requests(prefix: str, count: int, secret: bytes) -> list[bytes]:
    """Make `count` requests, event ids `<prefix>0` and on, signed now."""
    now = time.time_ns() // 1_000_000
    requests = []
    for number in range(count):
        event = {
            "id": f"{prefix}{number}",
            "type": "payment.succeeded",
            "created": now // 1000,
            "data": {
                "id": f"pi_{prefix}{number}",
                "amount": 5000,
                "currency": "XOF",
                "status": "succeeded",
                "customer": {"id": f"cus_{number}", "phone": "+221770000000"},
                "metadata": {"order_id": f"ord_{number}", "shop": "Dakar"},
            },
        }
        body = orjson.dumps(event)
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: Molam-Webhook/1.0\r\nAccept: */*\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"Molam-Signature: {signature.sign(body, secret, now, 'v1')}\r\n\r\n"
        )
        requests.append(head.encode() + body)
    return requests


class Load:
    """One run of at most `seconds`, or until the requests are used up."""

    def __init__(self, connections: list[Connection], requests: list[bytes], rate: float | None) -> None:
        self._requests = requests
        self._rate = rate
        self._next = 0
        self._poll = select.epoll()
        self._by_number = {connection.socket.fileno(): connection for connection in connections}
        for number in self._by_number:
            self._poll.register(number, select.EPOLLIN)
        self._idle = deque(connections)
        self.latencies: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.acknowledged: list[int] = []
        self.seconds = 0.0

    def run(self, seconds: float) -> None:
        start = time.perf_counter()
        counted_from, end = start + WARM_UP_SECONDS, start + WARM_UP_SECONDS + seconds
        while True:
            now = time.perf_counter()
            more = now < end and self._next < len(self._requests)
            if more:
                self._send_due(start, now)
            elif len(self._idle) == len(self._by_number):
                break
            for number, _ in self._poll.poll(self._pause(start) if more else 1.0):
                self._take(number, counted_from, end)
        self.seconds = min(now, end) - counted_from

    def _pause(self, start: float) -> float:
        if self._rate is None or not self._idle:
            return 1.0
        return max(0.0, start + self._next / self._rate - time.perf_counter())

    def _send_due(self, start: float, now: float) -> None:
        while self._idle and self._next < len(self._requests):
            due = now if self._rate is None else start + self._next / self._rate
            if due > now:
                return
            connection = self._idle.popleft()
            connection.due, connection.request = due, self._next
            connection.socket.send(self._requests[self._next])
            self._next += 1

    def _take(self, number: int, counted_from: float, end: float) -> None:
        connection = self._by_number[number]
        answer = connection.read()
        if answer is None:
            return
        status, keeps = answer
        now = time.perf_counter()
        if counted_from <= now <= end:
            self.latencies.append(now - connection.due)
            self.statuses[status] += 1
        if status == 200:
            self.acknowledged.append(connection.request)
        if not keeps:
            del self._by_number[number]
            self._poll.unregister(number)
            connection.socket.close()
            connection.open()
            self._by_number[connection.socket.fileno()] = connection
            self._poll.register(connection.socket.fileno(), select.EPOLLIN)
        self._idle.append(connection)


def main() -> int:
    """Run the command line; prints the figures as JSON, writes the numbers of the events answered 200."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", help="unix:PATH, http:PORT or https:PORT")
    parser.add_argument("acknowledged", type=Path, help="file to write the ids to that were answered 200")
    parser.add_argument("--prefix", required=True, help="what the event ids begin with")
    parser.add_argument("--secret", required=True)
    parser.add_argument("--cacert", type=Path)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--requests", type=int, required=True, help="how many to make; more than can be answered")
    parser.add_argument("--seconds", type=float, required=True, help="after a second that is not counted")
    parser.add_argument("--rate", type=float, help="requests a second")
    arguments = parser.parse_args()
    requests = make_requests(arguments.prefix, arguments.requests, arguments.secret.encode())
    context = ssl.create_default_context(cafile=arguments.cacert)
    connections = [Connection(arguments.target, context) for _ in range(arguments.connections)]
    cpu = time.process_time()
    load = Load(connections, requests, arguments.rate)
    load.run(arguments.seconds)
    ids = [f"{arguments.prefix}{number}\n" for number in load.acknowledged]
    arguments.acknowledged.write_text("".join(ids))
    latencies = sorted(load.latencies)
    figures = {
        "requests_per_second": len(latencies) / load.seconds,
        "p50_ms": 1000 * latencies[len(latencies) // 2],
        "p99_ms": 1000 * latencies[len(latencies) * 99 // 100],
        "statuses": load.statuses,
        "exhausted": len(load.acknowledged) == arguments.requests,
        "cpu_us_per_request": 1e6 * (time.process_time() - cpu) / max(1, sum(load.statuses.values())),
    }
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
