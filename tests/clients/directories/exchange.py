"""Data directories travel between Java's server and ours: Java → ours → Java → ours. After each move the tree is the
same, with every Stat, ACL and byte; sessions live on with their ephemerals; zxids go on where they stopped.

Usage: exchange.py java|PATH
"""

import itertools
import os
import shutil
import socket
import struct
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from servers import SUPER, Server, four_letter

# Sessions must outlive the starts of a JVM on a busy machine. Snapshots are taken often, so that a directory holds
# some, and logs on top of them.
CONFIG = ["extendedTypesEnabled=true", "minSessionTimeout=60000", "maxSessionTimeout=120000", "snapCount=40"]
PROPERTIES = [SUPER, "-Dznode.container.checkIntervalMs=1000000000"]
TIMEOUT_MS = 120000
OPEN = [(31, b"world", b"anyone")]
CREATE, DELETE, GET_DATA, SET_DATA, GET_ACL, SET_ACL, GET_CHILDREN2, MULTI, TTL, CONTAINER, AUTH, CLOSE = (
    1, 2, 4, 5, 6, 7, 12, 14, 21, 19, 100, -11
)


def buffer(data):
    return struct.pack(">i", -1) if data is None else struct.pack(">i", len(data)) + data


def acl_list(entries):
    return struct.pack(">i", len(entries)) + b"".join(struct.pack(">i", p) + buffer(s) + buffer(i) for p, s, i in entries)


class Client:
    """One session, whose connections come and go with the servers."""

    def __init__(self):
        self.session = 0
        self.password = bytes(16)
        self.xids = itertools.count(1)
        self.socket = None
        self.zxid = 0

    def attach(self, server):
        """A new session the first time; later the same session, which must be known to this server."""
        if self.socket:
            self.socket.close()
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        self.send(struct.pack(">iqiq", 0, self.zxid, TIMEOUT_MS, self.session) + buffer(self.password) + b"\0")
        _, timeout, session, length = struct.unpack(">iiqi", (answer := self.receive())[:20])
        assert timeout == TIMEOUT_MS, f"session {self.session:#x} is not known: {answer.hex()}"
        assert self.session in (0, session)
        self.session, self.password = session, answer[20:20 + length]
        return self

    def send(self, payload):
        self.socket.sendall(struct.pack(">i", len(payload)) + payload)

    def receive(self):
        def exactly(count):
            data = b""
            while len(data) < count:
                chunk = self.socket.recv(count - len(data))
                assert chunk, "the server has closed the connection"
                data += chunk
            return data

        return exactly(struct.unpack(">i", exactly(4))[0])

    def call(self, op, body=b"", xid=None):
        """Error and body."""
        xid = next(self.xids) if xid is None else xid
        self.send(struct.pack(">ii", xid, op) + body)
        while True:
            frame = self.receive()
            got, zxid, error = struct.unpack(">iqi", frame[:16])
            if got == xid:
                self.zxid = max(self.zxid, zxid)
                return error, frame[16:]

    def ok(self, op, body=b"", xid=None):
        error, reply = self.call(op, body, xid)
        assert error == 0, f"op {op}: error {error}"
        return reply

    def create(self, path, data=b"", flags=0, acl=OPEN):
        return self.ok(CREATE, buffer(path) + buffer(data) + acl_list(acl) + struct.pack(">i", flags))

    def auth(self, identity):
        return self.ok(AUTH, struct.pack(">i", 0) + buffer(b"digest") + buffer(identity), xid=-4)


def dump(client):
    """Path → data, Stat and ACL of each znode, as bytes."""
    tree = {}
    pending = [b"/"]
    while pending:
        path = pending.pop()
        children = client.ok(GET_CHILDREN2, buffer(path) + b"\0")
        count, at, names = struct.unpack(">i", children[:4])[0], 4, []
        for _ in range(count):
            length = struct.unpack(">i", children[at:at + 4])[0]
            names.append(children[at + 4:at + 4 + length])
            at += 4 + length
        tree[path] = (client.ok(GET_DATA, buffer(path) + b"\0"), client.ok(GET_ACL, buffer(path)))
        pending += [(b"" if path == b"/" else path) + b"/" + name for name in names]
    return tree


def grow(client, label):
    """Every kind of change, some refused, more than `snapCount` of them."""
    root = b"/" + label
    client.create(root, label)
    client.create(root + b"/null", None)
    client.create(root + b"/mine", b"e", flags=1)
    client.ok(CONTAINER, buffer(root + b"/box") + buffer(b"") + acl_list(OPEN) + struct.pack(">i", 4))
    client.create(root + b"/box/child")
    client.ok(TTL, buffer(root + b"/ttl") + buffer(b"t") + acl_list(OPEN) + struct.pack(">iq", 5, 10 ** 9))
    client.create(root + b"/auth", b"a", acl=[(31, b"auth", b""), (1, b"world", b"anyone")])
    client.create(root + b"/ip", b"i", acl=[(31, b"ip", b"127.0.0.0/8"), (0, b"world", b"anyone")])
    client.create(root + "/ünï€".encode(), "dätä".encode())
    for n in range(60):
        client.create(root + b"/box/seq-", b"%d" % n * (n * 20), flags=2)
    for n in range(0, 60, 3):
        client.ok(DELETE, buffer(root + b"/box/seq-%010d" % (n + 1)) + struct.pack(">i", -1))
        client.ok(SET_DATA, buffer(root + b"/box/seq-%010d" % (n + 2)) + buffer(b"set") + struct.pack(">i", 0))
    client.ok(SET_ACL, buffer(root + b"/null") + acl_list([(31, b"digest", b"bob:LcrmCNs/wfVD+i5a5yaz89GyjIM=")]) + struct.pack(">i", 0))
    header = lambda kind, done: struct.pack(">i?i", kind, done, -1)
    parts = [
        header(CREATE, False) + buffer(root + b"/multi") + buffer(b"m") + acl_list(OPEN) + struct.pack(">i", 0),
        header(CREATE, False) + buffer(root + b"/multi/e") + buffer(b"m") + acl_list(OPEN) + struct.pack(">i", 3),
        header(SET_DATA, False) + buffer(root + b"/multi") + buffer(b"new") + struct.pack(">i", 0),
    ]
    client.ok(MULTI, b"".join(parts) + header(-1, True))
    # Refused: they use up zxids.
    assert client.call(DELETE, buffer(root) + struct.pack(">i", -1))[0] == -111
    assert client.call(SET_DATA, buffer(root) + buffer(b"") + struct.pack(">i", 9))[0] == -103
    client.call(MULTI, b"".join(parts) + header(-1, True))
    for path, data in ((b"", b""), (b"/zookeeper_limits", b"count=1000,bytes=100000"), (b"/zookeeper_stats", b"count=0,bytes=0")):
        client.create(b"/zookeeper/quota" + root + path, data)
    client.create(root + b"/quota-counts-me", b"12345")


def differences(before, after):
    lines = []
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) != after.get(path):
            show = lambda found: "missing" if found is None else f"data+stat {found[0].hex()} acl+stat {found[1].hex()}"
            lines.append(f"{path.decode()}\n  was {show(before.get(path))}\n  is  {show(after.get(path))}")
    return lines


def check_digests(server):
    """The server that read the directory found the digests that were written into it."""
    lines = [line for line in four_letter(server.port, "mntr").splitlines() if "digest_mismatches_count" in line]
    assert [line.split()[1] for line in lines] == ["0"], f"{server.program}: {lines}"


def last_zxid(server):
    return [line for line in four_letter(server.port, "srvr").splitlines() if line.startswith("Zxid: ")]


def move(way, stop):
    """Takes one directory along the way of servers; `stop` ends each of them."""
    directory = tempfile.mkdtemp(prefix="oxkeeper-directories-")
    try:
        stays, admin = Client(), Client()
        known = zxid = None
        for number, program in enumerate(way):
            label = b"%d-%s" % (number, b"java" if program == "java" else b"ours")
            with Server(program, directory, config=CONFIG, properties=PROPERTIES) as server:
                assert zxid in (None, last_zxid(server)), f"{program} goes on at {last_zxid(server)}, not at {zxid}"
                admin.attach(server)
                admin.auth(b"super:test")
                if known is not None:
                    found = differences(known, dump(admin))
                    assert not found, f"{program} read another tree than was written:\n" + "\n".join(found)
                # The session that was there before keeps its ephemerals, and may make more.
                stays.attach(server)
                stays.auth(b"alice:a")
                check_digests(server)
                grow(stays, label)
                # A session that ends here must not come back on the next server.
                short = Client().attach(server)
                short.create(b"/" + label + b"/short", flags=1)
                short.ok(CLOSE)
                known = dump(admin)
                owned = [path for path in known if path.endswith((b"/mine", b"/multi/e0000000000"))]
                assert len(owned) == 2 * (number + 1), owned
                zxid = last_zxid(server)
                stop(server)
            print(f"ok {label.decode()}: {len(known)} znodes, {stop.__name__}", flush=True)
        with Server(way[0], directory, config=CONFIG, properties=PROPERTIES) as server:
            admin.attach(server)
            admin.auth(b"super:test")
            assert not differences(known, dump(admin))
            # And at last the session ends, and takes all its ephemerals along.
            stays.attach(server).ok(CLOSE)
            left = [path for path in dump(admin) if path.endswith((b"/mine", b"/multi/e0000000000"))]
            assert not left, left
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def main(program):
    move(["java", program, "java"], Server.stop)
    move([program, "java", program], Server.kill)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
