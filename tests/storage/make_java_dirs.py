"""Makes the data directories beside this file with Debian's Java server (ZooKeeper 3.8.0) and kazoo.

    python3 make_java_dirs.py <empty directory>

Each directory is cut to what is used: the padding of logs is removed. The servers are killed, not stopped, so that
sessions and ephemerals are alive in what they leave.
"""

import pathlib
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import namedtuple

from kazoo.client import KazooClient
from kazoo.exceptions import BadVersionError, NoNodeError, NodeExistsError, RolledBackError
from kazoo.protocol.serialization import int_int_struct, write_buffer, write_string
from kazoo.security import make_acl, make_digest_acl

CLASSPATH = "/etc/zookeeper/conf:/usr/share/java/zookeeper.jar:/usr/share/java/metrics-core.jar:/usr/share/java/snappy-java.jar"
MAIN = "org.apache.zookeeper.server.ZooKeeperServerMain"


class CreateWithFlags(namedtuple("CreateWithFlags", "type path data acl flags ttl")):
    """create (1), createContainer (19) and createTTL (21), which kazoo lacks, and null data."""

    def serialize(self):
        b = bytearray(write_string(self.path))
        b.extend(write_buffer(self.data))
        b.extend(struct.pack("!i", len(self.acl)))
        for acl in self.acl:
            b.extend(struct.pack("!i", acl.perms))
            b.extend(write_string(acl.id.scheme))
            b.extend(write_string(acl.id.id))
        b.extend(struct.pack("!i", self.flags))
        if self.ttl is not None:
            b.extend(struct.pack("!q", self.ttl))
        return b

    @classmethod
    def deserialize(cls, data, offset):
        return True


OPEN = [make_acl("world", "anyone", all=True)]


def call(zk, request):
    result = zk.handler.async_result()
    zk._call(request, result)
    return result.get(10)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(directory, *flags):
    port = free_port()
    config = directory / "zoo.cfg"
    config.write_text(
        f"dataDir={directory}\nclientPort={port}\nclientPortAddress=127.0.0.1\ntickTime=2000\n"
        "admin.enableServer=false\nextendedTypesEnabled=true\npreAllocSize=64\n"
    )
    command = ["java", "-Xmx128m", "-Dfile.encoding=UTF-8", *flags, "-cp", CLASSPATH, MAIN, str(config)]
    log = open(directory / "server.txt", "w")
    server = subprocess.Popen(command, stdout=log, stderr=log)
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return server, port
        except OSError:
            time.sleep(0.1)
    raise SystemExit((directory / "server.txt").read_text())


def client(port):
    zk = KazooClient(f"127.0.0.1:{port}", timeout=40)
    zk.start(60)
    return zk


def expect(error, function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except error:
        return
    raise AssertionError(f"{function} did not fail with {error}")


def every_type(port):
    """One txn of each type, refused ones included."""
    zk, other = client(port), client(port)
    zk.create("/a", b"hi")
    zk.create("/a/e", b"", ephemeral=True)
    zk.create("/ü", "größe".encode(), include_data=True)
    zk.create("/seq-", b"s", sequence=True)
    call(zk, CreateWithFlags(1, "/null", None, OPEN, 0, None))
    call(zk, CreateWithFlags(19, "/container", b"c", OPEN, 4, None))
    call(zk, CreateWithFlags(21, "/ttl", b"t", OPEN, 5, 86_400_000))
    zk.set("/a", b"ho")
    zk.set_acls("/a", [make_acl("world", "anyone", read=True, admin=True), make_digest_acl("u", "p", all=True)])
    zk.create("/b", b"", acl=[make_acl("world", "anyone", read=True, write=True, create=True, delete=True)])
    zk.create("/b/c", b"c")
    zk.delete("/b/c")
    expect(NodeExistsError, zk.create, "/b", b"")
    expect(BadVersionError, zk.set, "/b", b"", version=7)
    expect(NoNodeError, zk.delete, "/nothing")
    t = zk.transaction()
    t.create("/b/m1", b"1")
    t.create("/b/m2", b"2", ephemeral=True)
    t.check("/b", 0)
    t.set_data("/b", b"3")
    t.delete("/b/m1")
    assert not any(isinstance(r, Exception) for r in t.commit())
    t = zk.transaction()
    t.create("/b/n1", b"1")
    t.check("/b", 9)
    t.delete("/b/m2")
    assert isinstance(t.commit()[0], RolledBackError)
    other.create("/o", b"", ephemeral=True)
    other.create("/p", b"", ephemeral=True)
    other.stop()
    zk.ensure_path("/zookeeper/quota/a")
    zk.create("/zookeeper/quota/a/zookeeper_limits", b"count=10,bytes=1000")
    zk.create("/zookeeper/quota/a/zookeeper_stats", b"count=2,bytes=2")
    return zk


def standalone(root):
    """Many small logs and fuzzy snapshots, a restart in between, and every type of txn at the end."""
    directory = root / "java-3.8.0"
    directory.mkdir()
    server, port = start(directory, "-Dzookeeper.snapCount=20")
    zk = client(port)
    zk.create("/w", b"")
    for i in range(30):
        zk.create(f"/w/{i}", b"x" * i)
    kept = client(port)
    kept.create("/w/kept", b"", ephemeral=True)
    server.send_signal(signal.SIGKILL)
    server.wait()
    server, port = start(directory, "-Dzookeeper.snapCount=1000")
    zk = every_type(port)
    state = dump(zk, "/")
    server.send_signal(signal.SIGKILL)
    server.wait()
    (directory / "expected.txt").write_text("\n".join(state) + "\n")
    keep(directory)


def compressed(root, method):
    directory = root / f"java-3.8.0-{method}"
    directory.mkdir()
    server, port = start(directory)
    every_type(port)
    server.send_signal(signal.SIGKILL)
    server.wait()
    # The next start writes a snapshot of everything.
    server, port = start(directory, f"-Dzookeeper.snapshot.compression.method={method}")
    client(port)
    server.send_signal(signal.SIGKILL)
    server.wait()
    for log in (directory / "version-2").glob("log.*"):
        log.unlink()
    (directory / "version-2" / "snapshot.0").unlink()
    keep(directory)


def dump(zk, path):
    """path, data in hex or null, stat: one line per znode."""
    data, stat = zk.get(path)
    text = "null" if data is None else data.hex()
    lines = [" ".join([path, text or "-", *(str(field) for field in stat)])]
    for child in sorted(zk.get_children(path)):
        lines.extend(dump(zk, (path if path != "/" else "") + "/" + child))
    return lines


def keep(directory):
    """Leaves version-2 alone, without padding."""
    for name in ["zoo.cfg", "server.txt"]:
        (directory / name).unlink()
    for log in (directory / "version-2").glob("log.*"):
        content = log.read_bytes()
        end = 16
        while end + 12 <= len(content):
            (length,) = struct.unpack("!i", content[end + 8 : end + 12])
            if length == 0:
                break
            end += 12 + length + 1
        log.write_bytes(content[:end])


if __name__ == "__main__":
    root = pathlib.Path(sys.argv[1])
    standalone(root)
    for method in ["gz", "snappy"]:
        compressed(root, method)
