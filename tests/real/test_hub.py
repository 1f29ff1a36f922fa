"""The hub with raw sockets and a driver of straw: splitting, fairness, back-pressure, bad peers."""

import contextlib
import errno
import os
import resource
import socket
import struct

import pytest

from flussd.runtime_real import sockets as sockets_module
from flussd.runtime_real.hub import Hub
from flussd.runtime_real.listening import bind_all
from flussd.runtime_real.network import Addresses, NodeNetwork


def request(request_id, body=b"", api_key=1000):
    payload = struct.pack(">hhi", api_key, 0, request_id) + body
    return struct.pack(">i", len(payload)) + payload


def answer(request_id, body=b""):
    payload = struct.pack(">bi", 0, request_id) + body
    return struct.pack(">i", len(payload)) + payload


def closed():
    raise AssertionError("the connection was closed")


class StrawDriver:
    """Remembers what the network told it; answers at once with `reply`, or not when that is None."""

    def __init__(self):
        self.opened, self.closed, self.requests = [], [], []
        self.internal = {}
        self.responses = []
        self.network = None
        self.reply = answer

    def connection_opened(self, connection, *, internal):
        self.opened.append(connection)
        self.internal[connection] = internal

    def connection_closed(self, connection):
        self.closed.append(connection)

    def frame_received(self, connection, frame):
        assert not frame.readonly
        request_id = struct.unpack_from(">i", frame, 4)[0]
        self.requests.append((connection, request_id, bytes(frame[8:])))
        frame[:] = bytes(len(frame))  # what it holds is ours to overwrite
        reply = self.reply and self.reply(request_id)
        if reply is not None:
            self.network.send(connection, (reply,))

    def response_received(self, connection, frame):
        self.responses.append((connection, bytes(frame)))

    def run(self):
        pass


class Bench:
    """A hub that is woken by hand, one node on it, and clients."""

    def __init__(self):
        self.hub = Hub()
        self.addresses = Addresses()
        self.driver, self.network = self.node("memory:0")
        (listening,) = bind_all("127.0.0.1", 0, 1)
        self.address = listening.getsockname()
        self.network.listen(listening)
        self.clients = []

    def node(self, internal_address):
        driver = StrawDriver()
        network = NodeNetwork(self.hub, self.addresses, internal_address)
        network.driver = driver
        driver.network = network
        self.addresses.nodes[internal_address] = network
        return driver, network

    def client(self, **options):
        client = socket.socket()
        for name, value in options.items():
            client.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
        client.connect(self.address)
        client.settimeout(10)
        self.clients.append(client)
        self.turn(3)
        return client

    def turn(self, count=1):
        """Wake the hub *count* times, with whatever is ready."""
        for _ in range(count):
            self.hub.wake_up(self.hub.epoll.poll(0.01))

    def until(self, condition, turn_count=2000):
        for _ in range(turn_count):
            if condition():
                return
            self.turn()
        raise AssertionError("it did not happen")

    def received(self, client, byte_count):
        """Read *byte_count* bytes at the client while the hub runs."""
        client.setblocking(False)
        data = bytearray()

        def complete():
            with contextlib.suppress(BlockingIOError):
                while len(data) < byte_count:
                    data.extend(client.recv(byte_count - len(data)) or closed())
            return len(data) == byte_count

        self.until(complete)
        return bytes(data)

    def end(self):
        for client in self.clients:
            client.close()
        self.network.shut()
        self.turn(3)
        assert not self.network.ends
        self.hub.close()


@pytest.fixture
def bench():
    bench = Bench()
    yield bench
    bench.end()


# ---- frames --------------------------------------------------------------------------------------


def test_a_frame_in_single_bytes(bench):
    """A frame may come in any number of pieces, the length field split as well."""
    client = bench.client()
    for byte in request(7, b"body"):
        assert [] == bench.driver.requests
        client.sendall(bytes([byte]))
        bench.turn()
    bench.until(lambda: bench.driver.requests)

    assert [(1, 7, b"body")] == bench.driver.requests
    assert answer(7) == bench.received(client, len(answer(7)))


def test_many_frames_in_one_segment(bench):
    """All are delivered in order, and their answers leave together."""
    client = bench.client()
    client.sendall(b"".join(request(n, b"x" * n) for n in range(100)))
    expected = b"".join(answer(n) for n in range(100))

    assert expected == bench.received(client, len(expected))
    assert [(1, n, b"x" * n) for n in range(100)] == bench.driver.requests


def test_large_frames(bench):
    """A frame larger than any buffer so far arrives whole, and small ones after it too."""
    client = bench.client()
    client.setblocking(False)
    body = os.urandom(9_000_000)
    left = memoryview(request(1, body) + request(2, b"small"))

    def all_sent():
        nonlocal left
        with contextlib.suppress(BlockingIOError):
            left = left[client.send(left) :]
        return not left

    bench.until(all_sent)
    bench.until(lambda: len(bench.driver.requests) == 2)

    assert [(1, 1, body), (1, 2, b"small")] == bench.driver.requests


def test_a_large_frame_wakes_the_hub_once(bench):
    """Most of what is still to come of it is waited for; the small frame behind it is not."""
    client, body = bench.client(), os.urandom(400_000)
    pieces = [piece[n : n + 20_000] for piece in (request(1, body),) for n in range(0, len(piece), 20_000)]
    for count, piece in enumerate(pieces):
        assert count < 2 or count > 15 or not bench.hub.epoll.poll(0.001)
        client.sendall(piece)
        if count == 0:
            bench.turn(2)
    bench.until(lambda: bench.driver.requests)
    client.sendall(request(2, b"small"))
    bench.until(lambda: len(bench.driver.requests) == 2)

    assert [(1, 1, body), (1, 2, b"small")] == bench.driver.requests


@pytest.mark.parametrize(
    "bad",
    [
        struct.pack(">i", 2**31 - 1),
        struct.pack(">i", 100 * 1024 * 1024 + 1),
        struct.pack(">i", -1),
        struct.pack(">i", 0),
        struct.pack(">i", 7) + b"x" * 7,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_a_bad_frame_closes_its_connection_alone(bench, bad):
    """No length is believed; whoever sends one is closed, and others do not notice."""
    other, client = bench.client(), bench.client()
    client.sendall(request(1) + bad)
    bench.until(lambda: bench.driver.closed)
    other.sendall(request(2))

    assert [2] == bench.driver.closed
    assert answer(2) == bench.received(other, len(answer(2)))
    assert client.recv(99) in {b"", answer(1)}


# ---- who waits for whom --------------------------------------------------------------------------


def test_a_parked_request_blocks_nobody(bench):
    """Requests behind a parked one are answered before it, on its connection and on others."""
    client, other = bench.client(), bench.client()
    bench.driver.reply = lambda request_id: None if request_id == 1 else answer(request_id)
    client.sendall(request(1) + request(2))
    other.sendall(request(3))

    assert answer(2) == bench.received(client, len(answer(2)))
    assert answer(3) == bench.received(other, len(answer(3)))
    bench.network.send(1, (answer(1),))
    assert answer(1) == bench.received(client, len(answer(1)))


def test_a_parked_request_is_acknowledged_at_once(bench, monkeypatch):
    """Without that, the Rust client's next request waits 40 ms for Nagle."""
    acknowledged = []
    monkeypatch.setattr(sockets_module, "quick_ack", acknowledged.append)
    client = bench.client()
    client.sendall(request(1))
    bench.until(lambda: len(bench.driver.requests) == 1)
    answered_count = len(acknowledged)
    bench.driver.reply = None
    client.sendall(request(2))
    bench.until(lambda: len(bench.driver.requests) == 2)

    assert 0 == answered_count
    assert 1 == len(acknowledged)


def test_an_answer_in_its_own_wake_up_leaves_epoll_alone(bench, monkeypatch):
    """What is read, answered and sent at once needs no other interest in between: two calls saved."""
    client = bench.client()
    changes = []
    monkeypatch.setattr(Hub, "modify", lambda _hub, *change: changes.append(change))
    client.sendall(request(1))

    assert answer(1) == bench.received(client, len(answer(1)))
    assert [] == changes


def test_a_paused_connection_is_not_read(bench):
    """Pause stops delivery between two frames of one read; resume goes on with what was read."""
    client = bench.client()

    def reply(request_id):
        if request_id == 3:
            bench.network.pause(1)
        return answer(request_id)

    bench.driver.reply = reply
    client.sendall(b"".join(map(request, range(10))))
    bench.turn(5)
    before = [request_id for _, request_id, _ in bench.driver.requests]
    bench.network.resume(1)
    assert before == [request_id for _, request_id, _ in bench.driver.requests], "resume only queues"
    bench.turn(5)

    assert [0, 1, 2, 3] == before
    assert list(range(10)) == [request_id for _, request_id, _ in bench.driver.requests]


def test_a_slow_reader_is_read_no_more(bench, monkeypatch):
    """Who does not take answers cannot ask for more, and gets all of them when it reads again."""
    monkeypatch.setattr(sockets_module, "OUTPUT_HIGH_BYTES", 200_000)
    monkeypatch.setattr(sockets_module, "OUTPUT_LOW_BYTES", 50_000)
    body = os.urandom(50_000)
    bench.driver.reply = lambda request_id: answer(request_id, body)
    client, other = bench.client(SO_RCVBUF=100_000), bench.client()
    client.sendall(b"".join(map(request, range(400))))
    bench.turn(50)
    served_count = len(bench.driver.requests)
    other.sendall(request(999))
    small = bench.received(other, len(answer(999, body)))
    expected = b"".join(answer(n, body) for n in range(400))
    data = bench.received(client, len(expected))

    assert served_count < 200  # what the kernel's own buffers took
    assert answer(999, body) == small
    assert expected == data


def test_a_reader_that_never_reads_is_closed_at_the_bound(bench, monkeypatch):
    """Parked requests can be answered while the connection is not read; that has a bound too."""
    monkeypatch.setattr(sockets_module, "OUTPUT_MAX_BYTES", 20_000_000)
    bench.driver.reply = None
    client = bench.client(SO_RCVBUF=10_000)
    client.sendall(b"".join(map(request, range(30))))
    bench.until(lambda: len(bench.driver.requests) == 30)
    for n in range(30):
        bench.network.send(1, (answer(n, bytes(1_000_000)),))
    bench.turn(3)

    assert [1] == bench.driver.closed


def test_one_connection_cannot_take_a_wake_up_for_itself(bench):
    """A flood of small requests is served in shares, and another client in between."""
    flood, other = bench.client(), bench.client()
    flood.sendall(b"".join(map(request, range(2000))))
    other.sendall(request(5000))
    bench.until(lambda: len(bench.driver.requests) >= 2001)
    order = [request_id for _, request_id, _ in bench.driver.requests]

    assert order.index(5000) <= 2 * sockets_module.FRAMES_PER_WAKE_UP
    assert list(range(2000)) == [request_id for request_id in order if request_id < 5000]


def test_sent_views_are_free_on_return(bench):
    """A buffer that its owner uses again does not change what leaves at the end of the wake-up."""
    buffer = bytearray(answer(1, b"first"))
    bench.driver.reply = None
    client = bench.client()
    client.sendall(request(1))
    bench.until(lambda: bench.driver.requests)
    bench.network.send(1, (memoryview(buffer),))
    buffer[:] = bytes(len(buffer))

    assert answer(1, b"first") == bench.received(client, len(buffer))


def test_thousands_of_parts_leave_in_order(bench):
    """The kernel takes 1024 parts a call."""
    bench.driver.reply = None
    client = bench.client()
    client.sendall(request(1))
    bench.until(lambda: bench.driver.requests)
    parts = tuple(b"%04d" % n for n in range(5000))
    bench.network.send(1, parts)

    assert b"".join(parts) == bench.received(client, 20_000)


# ---- closing -------------------------------------------------------------------------------------


def test_half_closed_peers_get_their_answers(bench):
    """Who sends no more still gets what was asked, also what is answered later; then we close."""
    bench.driver.reply = lambda request_id: None if request_id == 1 else answer(request_id)
    client = bench.client()
    client.sendall(request(1) + request(2))
    client.shutdown(socket.SHUT_WR)
    first = bench.received(client, len(answer(2)))
    bench.turn(3)
    closed_early = list(bench.driver.closed)
    bench.network.send(1, (answer(1),))
    second = bench.received(client, len(answer(1)))
    bench.turn(3)

    assert (answer(2), answer(1)) == (first, second)
    assert [] == closed_early
    assert [1] == bench.driver.closed
    client.setblocking(True)
    assert b"" == client.recv(9)


def test_a_peer_that_goes_is_told_once(bench):
    """A clean close, a reset, and a reset while answers are due: each closes once and hurts nobody."""
    clean, reset, busy = bench.client(), bench.client(), bench.client()
    bench.driver.reply = lambda request_id: answer(request_id, bytes(10_000_000))
    clean.close()
    reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    reset.close()
    busy.sendall(request(1))
    bench.turn(3)
    busy.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    busy.close()
    bench.until(lambda: len(bench.driver.closed) == 3)
    bench.turn(5)

    assert [1, 2, 3] == sorted(bench.driver.closed)


def test_our_close_is_queued(bench):
    """A close takes effect behind the step that asked; the driver is told, and later sends are none."""
    client = bench.client()
    bench.network.close(1)
    told_at_once = list(bench.driver.closed)
    bench.turn(2)
    bench.network.send(1, (answer(1),))
    bench.network.close(1)
    bench.turn(2)

    assert [] == told_at_once
    assert [1] == bench.driver.closed
    assert b"" == client.recv(9)


def test_idle_connections_are_closed(bench, monkeypatch):
    """Silence ends a connection, unless a request of it is parked."""
    quiet, parked = bench.client(), bench.client()
    bench.driver.reply = None
    parked.sendall(request(1))
    bench.until(lambda: bench.driver.requests)
    bench.network.ends[1].sweep(bench.hub.time.now_ms + sockets_module.IDLE_MS - 1000)
    early = list(bench.driver.closed)
    for end in list(bench.network.ends.values()):
        end.sweep(bench.hub.time.now_ms + sockets_module.IDLE_MS + 1000)

    assert [] == early
    assert [1] == bench.driver.closed
    assert b"" == quiet.recv(9)


# ---- descriptors ---------------------------------------------------------------------------------


def test_without_descriptors_it_rests_and_goes_on(bench, caplog):
    """At the limit no connection is lost and nothing spins; later ones are accepted after a rest."""
    first = bench.client()
    waiting = socket.create_connection(bench.address)
    bench.clients.append(waiting)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        bench.turn(5)
        first.sendall(request(1))
        served = bench.received(first, len(answer(1)))
        accepted_count = len(bench.driver.opened)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    bench.until(lambda: len(bench.driver.opened) == 2)
    waiting.sendall(request(2))

    assert answer(1) == served
    assert 1 == accepted_count
    assert answer(2) == bench.received(waiting, len(answer(2)))
    assert 1 == sum(os.strerror(errno.EMFILE) in record.getMessage() for record in caplog.records)


def test_a_descriptor_used_again_in_one_wake_up(bench):
    """A connection accepted under the number of one just closed does not get its events."""
    old = bench.client()
    old.sendall(request(1))
    old.close()
    new = socket.create_connection(bench.address)
    bench.clients.append(new)
    bench.until(lambda: 2 in bench.driver.opened)
    bench.turn(3)
    new.sendall(request(2))

    assert answer(2) == bench.received(new, len(answer(2)))
    assert [1] == bench.driver.closed


# ---- memory ------------------------------------------------------------------------------------


def test_connections_in_memory(bench):
    """Frames cross in writable copies, never within a send; a close tells both sides, after them."""
    other, other_network = bench.node("memory:1")
    connected = []
    other_network.connect("memory:0", connected.append)
    other_network.connect("memory:99", connected.append)
    bench.turn(2)
    ours = connected[0]
    theirs = bench.driver.opened[0]
    buffer = bytearray(request(1, b"one") + request(2, b"two"))
    other_network.send(ours, (memoryview(buffer)[:5], memoryview(buffer)[5:]))
    buffer[:] = bytes(len(buffer))
    at_once = list(bench.driver.requests)
    bench.turn(2)
    other_network.close(ours)
    bench.turn(2)

    assert None is connected[1]
    assert bench.driver.internal[theirs] is True
    assert [] == at_once
    assert [(theirs, 1, b"one"), (theirs, 2, b"two")] == bench.driver.requests
    assert [(ours, answer(1)[4:]), (ours, answer(2)[4:])] == other.responses
    assert ([ours], [theirs]) == (other.closed, bench.driver.closed)
