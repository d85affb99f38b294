"""Clients that fail over between all servers, and what must hold of everything that they were told.

Each client reads and sets one znode that all share, with version checks, sets one of its own without, keeps an
ephemeral and watches. Checked as it happens:

  - zxids of a session's replies never go back, on whichever server
  - nobody sees a version older than one that was seen or written in the same session before
  - a watch's event comes before any reply that shows the change

and at the end, over all:

  - each version of the shared znode has one writer, and whoever read it saw that writer's value
  - a set that ended before another began has the smaller version
  - every acknowledged set of an own znode is there, once
  - the ephemerals are there, for no session has expired
"""

import collections
import itertools
import random
import socket
import struct
import threading
import time

TIMEOUT_MS = 60_000
# Behind so much silence a client tries another server: one may be frozen.
SILENCE_S = 5
# Longest wait for anything that must come: behind it, something hangs.
PATIENCE_S = 60
CREATE, EXISTS, GET_DATA, SET_DATA, SYNC, CLOSE = 1, 3, 4, 5, 9, -11
NOTIFICATION = -1
EPHEMERAL = 1
OK, NO_NODE, BAD_VERSION, NODE_EXISTS = 0, -101, -103, -110
STAT = struct.Struct(">qqqqiiiqiiq")


class Broken(Exception):
    """A promise of the servers."""


class Lost(Exception):
    """The connection is gone; what was asked may have happened or not."""


def text(value):
    return struct.pack(">i", len(value)) + value


class Session:
    """One session, whose connections come and go."""

    def __init__(self, name, addresses, at):
        self.name = name
        self.addresses = itertools.cycle(addresses[at:] + addresses[:at])
        self.session, self.password = 0, bytes(16)
        self.zxid = 0
        self.xids = itertools.count(1)
        self.socket = None
        self.connections = 0
        # Paths whose events came on this connection.
        self.events = []

    def connect(self):
        """A connection to the next server that gives one."""
        give_up = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self.try_connect(next(self.addresses))
            except (OSError, Lost):
                if time.monotonic() > give_up:
                    raise Broken(f"{self.name}: no server takes the session within {PATIENCE_S} s") from None
                time.sleep(0.02)

    def try_connect(self, address):
        self.disconnect()
        self.socket = socket.create_connection(address, timeout=SILENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.send(struct.pack(">iqiq", 0, self.zxid, TIMEOUT_MS, self.session) + text(self.password) + b"\0")
        _, timeout, session, length = struct.unpack(">iiqi", (answer := self.receive())[:20])
        if timeout <= 0:
            raise Broken(f"{self.name}: session {self.session:#x} has expired, says {address}")
        if self.session not in (0, session):
            raise Broken(f"{self.name}: session {self.session:#x} became {session:#x}")
        self.session, self.password = session, answer[20 : 20 + length]
        self.connections += 1
        self.events.clear()

    def disconnect(self):
        if self.socket:
            self.socket.close()
            self.socket = None

    def send(self, payload):
        try:
            self.socket.sendall(struct.pack(">i", len(payload)) + payload)
        except OSError as error:
            raise Lost(error) from None

    def receive(self):
        length = struct.unpack(">i", self.exactly(4))[0]
        return self.exactly(length)

    def exactly(self, length):
        data = b""
        while len(data) < length:
            try:
                part = self.socket.recv(length - len(data))
            except OSError as error:
                raise Lost(error) from None
            if not part:
                raise Lost("closed")
            data += part
        return data

    def call(self, op, body):
        """Error and record of the answer. Raises `Lost`."""
        if not self.socket:
            self.connect()
        try:
            xid = next(self.xids)
            self.send(struct.pack(">ii", xid, op) + body)
            while True:
                frame = self.receive()
                got, zxid, error = struct.unpack(">iqi", frame[:16])
                if got == NOTIFICATION:
                    self.events.append(frame[16 + 8 + 4 :].decode())
                    continue
                if got != xid:
                    raise Broken(f"{self.name}: xid {got} where {xid} was due")
                if zxid > 0:
                    if zxid < self.zxid:
                        raise Broken(f"{self.name}: zxid went back from {self.zxid:#x} to {zxid:#x}")
                    self.zxid = zxid
                return error, frame[16:]
        except Lost:
            self.disconnect()
            raise

    def call_until_answered(self, op, body):
        """For what does no harm when done twice."""
        while True:
            try:
                return self.call(op, body)
            except Lost:
                pass

    def create(self, path, data=b"", flags=0):
        acl = struct.pack(">ii", 1, 31) + text(b"world") + text(b"anyone")
        error, _ = self.call_until_answered(CREATE, text(path) + text(data) + acl + struct.pack(">i", flags))
        if error not in (OK, NODE_EXISTS):
            raise Broken(f"{self.name}: creating {path.decode()}: error {error}")

    def get(self, path, watch=False):
        """Data and version."""
        error, record = self.call(GET_DATA, text(path) + bytes([watch]))
        if error:
            raise Broken(f"{self.name}: reading {path.decode()}: error {error}")
        length = max(struct.unpack(">i", record[:4])[0], 0)
        return record[4 : 4 + length], STAT.unpack_from(record, 4 + length)[4]

    def get_until_answered(self, path):
        while True:
            try:
                return self.get(path)
            except Lost:
                pass

    def set(self, path, data, version=-1):
        """The new version, or None where another was faster."""
        error, record = self.call(SET_DATA, text(path) + text(data) + struct.pack(">i", version))
        if error == BAD_VERSION and version != -1:
            return None
        if error:
            raise Broken(f"{self.name}: setting {path.decode()}: error {error}")
        return STAT.unpack_from(record)[4]

    def close(self):
        try:
            self.call(CLOSE, b"")
        except Lost:
            pass
        self.disconnect()


SHARED = b"/mixed/shared"

# A set of the shared znode: value, its version (None: unknown outcome), when it began and ended.
Set = collections.namedtuple("Set", "value version began ended")
Read = collections.namedtuple("Read", "value version who")


class Client(threading.Thread):
    """Works until it is told to end, or a promise is broken."""

    def __init__(self, number, addresses, seed):
        super().__init__(name=f"client {number}", daemon=True)
        self.number = number
        self.random = random.Random(f"{seed} {number}")
        self.session = Session(self.name, addresses, number % len(addresses))
        self.own = b"/mixed/own-%d" % number
        self.ephemeral = b"/mixed/ephemeral-%d" % number
        self.is_ended = threading.Event()
        self.trouble = None
        self.sets, self.reads = [], []
        # Of the shared znode, as seen in this session.
        self.seen = 0
        # Version that a watch was set at, on the connection of this number.
        self.watch = None
        # Of the own znode: number and version of the last acknowledged set, and sets of unknown outcome since.
        self.sequence, self.acknowledged, self.unknown = 0, (0, 0), []
        self.answered = self.lost = 0

    def prepare(self):
        self.session.create(self.own)
        self.session.create(self.ephemeral, flags=EPHEMERAL)

    def run(self):
        try:
            while not self.is_ended.is_set():
                step = self.random.choices([self.set_shared, self.read_shared, self.set_own], [3, 3, 4])[0]
                try:
                    step()
                    self.answered += 1
                except Lost:
                    self.lost += 1
                time.sleep(self.random.uniform(0, 0.01))
        except Exception as error:  # noqa: BLE001, it is told by whoever ends this
            self.trouble = error

    def look(self, watch=False):
        value, version = self.session.get(SHARED, watch)
        self.reads.append(Read(value, version, self.name))
        if version < self.seen:
            raise Broken(f"{self.name}: version {version} was read behind version {self.seen}")
        self.check_watch(version)
        self.seen = version
        return value, version

    def check_watch(self, version):
        """An event comes before the first reply that shows the change."""
        if self.watch and self.watch[0] == self.session.connections and version > self.watch[1]:
            if not any(path.endswith(SHARED.decode()) for path in self.session.events):
                raise Broken(f"{self.name}: version {version} was read before the event of the watch at {self.watch[1]}")
            self.watch = None
            self.session.events.clear()

    def read_shared(self):
        has_watch = self.watch and self.watch[0] == self.session.connections
        _, version = self.look(watch=not has_watch)
        if not has_watch:
            self.session.events.clear()
            self.watch = (self.session.connections, version)

    def set_shared(self):
        _, version = self.look()
        self.sequence += 1
        value = b"%d %d" % (self.number, self.sequence)
        began = time.monotonic()
        try:
            got = self.session.set(SHARED, value, version)
        except Lost:
            self.sets.append(Set(value, None, began, None))
            raise
        if got is None:
            return
        if got != version + 1:
            raise Broken(f"{self.name}: a set at version {version} gave version {got}")
        self.sets.append(Set(value, got, began, time.monotonic()))
        self.check_watch(got)
        self.seen = got

    def set_own(self):
        self.sequence += 1
        try:
            version = self.session.set(self.own, b"%d" % self.sequence)
        except Lost:
            self.unknown.append(self.sequence)
            raise
        applied = version - self.acknowledged[1] - 1
        if not 0 <= applied <= len(self.unknown):
            raise Broken(f"{self.name}: own version {version} behind {self.acknowledged}, {len(self.unknown)} unknown")
        self.acknowledged, self.unknown = (self.sequence, version), []

    def check_own(self, session):
        """What stands at the end."""
        value, version = session.get_until_answered(self.own)
        applied = version - self.acknowledged[1]
        stands = int(value or b"0")
        fine = stands == self.acknowledged[0] if applied == 0 else stands in self.unknown
        if not (fine and applied <= len(self.unknown)):
            raise Broken(f"{self.name}: own value {stands} version {version}; acknowledged {self.acknowledged}, unknown {self.unknown}")


class Load:
    """Some clients at work. Use it in a `with`; `check` ends them and judges."""

    def __init__(self, addresses, clients=4, seed=1):
        self.addresses = list(addresses)
        admin = Session("preparation", self.addresses, 0)
        admin.create(b"/mixed")
        admin.create(SHARED)
        admin.close()
        self.clients = [Client(number, self.addresses, seed) for number in range(clients)]
        for client in self.clients:
            client.prepare()

    def __enter__(self):
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *_):
        for client in self.clients:
            client.is_ended.set()
        for client in self.clients:
            if client.is_alive():
                client.join(2 * PATIENCE_S)
            client.session.disconnect()

    def check_progress(self, seconds=1):
        """Every client gets answers again, and nobody is in trouble."""
        give_up = time.monotonic() + 2 * PATIENCE_S
        time.sleep(seconds)
        before = [client.answered for client in self.clients]
        while any(client.answered < start + 5 for client, start in zip(self.clients, before)):
            self.raise_trouble()
            if time.monotonic() > give_up:
                raise Broken("no progress")
            time.sleep(0.05)

    def raise_trouble(self):
        for client in self.clients:
            if client.trouble:
                raise client.trouble

    def check(self):
        for client in self.clients:
            client.is_ended.set()
        for client in self.clients:
            client.join(2 * PATIENCE_S)
            if client.is_alive():
                raise Broken(f"{client.name} hangs")
        self.raise_trouble()
        sets = [each for client in self.clients for each in client.sets]
        reads = [each for client in self.clients for each in client.reads]
        session = Session("the end", self.addresses, 0)
        session.call_until_answered(SYNC, text(SHARED))
        value, version = session.get_until_answered(SHARED)
        reads.append(Read(value, version, session.name))
        owners = check_owners(sets, reads)
        check_order(sets)
        if len(owners) != version:
            raise Broken(f"version {version} of the shared znode, and {len(owners)} sets that can have made it")
        for client in self.clients:
            client.check_own(session)
            error, _ = session.call_until_answered(EXISTS, text(client.ephemeral) + b"\0")
            if error:
                raise Broken(f"{client.name}: the ephemeral of a living session: error {error}")
        for client in self.clients:
            client.session.close()
        for client in self.clients:
            wait_gone(session, client.ephemeral)
        session.close()
        done = sum(client.answered for client in self.clients)
        lost = sum(client.lost for client in self.clients)
        return f"{done} answers, {lost} lost with their connections, {version} shared sets, {len(reads)} reads"


def wait_gone(session, path):
    give_up = time.monotonic() + PATIENCE_S
    while session.call_until_answered(EXISTS, text(path) + b"\0")[0] != NO_NODE:
        if time.monotonic() > give_up:
            raise Broken(f"{path.decode()} is there although its session was closed")
        time.sleep(0.05)


def check_owners(sets, reads):
    """Each version has one value. Gives the values by version."""
    owners = {}
    for each in sets:
        if each.version is not None and owners.setdefault(each.version, each.value) != each.value:
            raise Broken(f"version {each.version} was given to {owners[each.version]} and to {each.value}")
    unknown = {each.value for each in sets if each.version is None}
    for each in reads:
        if each.version == 0:
            continue
        owner = owners.get(each.version)
        if owner is None and each.value in unknown and each.value not in owners.values():
            owners[each.version] = each.value
        elif owner != each.value:
            raise Broken(f"{each.who} read {each.value} as version {each.version}, which is {owner}")
    # What nobody has read can only be one of unknown outcome.
    last = max(owners, default=0)
    missing = [version for version in range(1, last + 1) if version not in owners]
    if len(missing) > len(unknown - set(owners.values())):
        raise Broken(f"nobody can have made the versions {missing}")
    owners.update((version, None) for version in missing)
    return owners


def check_order(sets):
    """A set that ended before another began has the smaller version."""
    known = [each for each in sets if each.version is not None]
    ended = sorted(known, key=lambda each: each.ended)
    newest, at = 0, 0
    for each in sorted(known, key=lambda each: each.began):
        while at < len(ended) and ended[at].ended < each.began:
            newest = max(newest, ended[at].version)
            at += 1
        if each.version <= newest:
            raise Broken(f"{each.value} has version {each.version} and began behind the end of version {newest}")
