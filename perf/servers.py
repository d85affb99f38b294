"""Servers under measurement: start, ask, measure from outside, stop.

Both get the same zoo.cfg, the same limits, a directory on the same disk and a port of their own on loopback.
"""

import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import time

JAVA_JAR = "/usr/share/java/zookeeper.jar"
JAVA_CONF = "/etc/zookeeper/conf"
JAVA_MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
START_LIMIT_S = 180

ZOO_CFG = """\
tickTime=2000
dataDir={data}
clientPort={port}
clientPortAddress=127.0.0.1
maxClientCnxns=0
globalOutstandingLimit=100000
maxSessionTimeout=120000
forceSync=yes
admin.enableServer=false
4lw.commands.whitelist=*
"""


def install_java():
    """Debian's ZooKeeper, unless it is there."""
    if os.path.exists(JAVA_JAR) and shutil.which("java"):
        return
    command = ["apt-get", "install", "-y", "--no-install-recommends", "zookeeper"]
    if os.geteuid() != 0:
        command = ["sudo", "-n", *command]
    print("installing Java's ZooKeeper:", " ".join(command), flush=True)
    subprocess.run(command, check=True)


def free_port():
    """Below the range that connecting sockets draw theirs from: in it, a client that tries too early meets itself."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


class Client:
    """As much of the client protocol as measuring needs: a session, one read."""

    def __init__(self, port, timeout_s, host="127.0.0.1"):
        self.socket = socket.create_connection((host, port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            request = struct.pack(">iqiqi", 0, 0, 30_000, 0, 16) + bytes(17)
            self.send(request)
            self.receive()
        except BaseException:
            self.socket.close()
            raise

    def send(self, payload):
        self.socket.sendall(struct.pack(">i", len(payload)) + payload)

    def receive(self):
        return self.exactly(struct.unpack(">i", self.exactly(4))[0])

    def exactly(self, length):
        data = b""
        while len(data) < length:
            part = self.socket.recv(length - len(data))
            if not part:
                raise ConnectionError("the server closed the connection")
            data += part
        return data

    def exists(self, path):
        """Whether the znode is there: one read."""
        name = path.encode()
        self.send(struct.pack(">iii", 1, 3, len(name)) + name + b"\0")
        _, _, error = struct.unpack(">iqi", self.receive()[:16])
        return error == 0

    def close(self):
        try:
            self.send(struct.pack(">ii", 2, -11))
            self.receive()
        except OSError:
            pass
        self.socket.close()


def word(port, text, timeout_s=10):
    """A four-letter word's answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        connection.sendall(text.encode())
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return answer.decode(errors="replace")


class Server:
    """One server process with its own directory. `command` is filled in by the two functions below."""

    def __init__(self, kind, command, directory, cpus):
        self.kind = kind
        self.directory = directory
        self.port = free_port()
        self.process = None
        data = os.path.join(directory, "data")
        os.makedirs(data)
        config = os.path.join(directory, "zoo.cfg")
        with open(config, "w") as file:
            file.write(ZOO_CFG.format(data=data, port=self.port))
        pin = ["taskset", "-c", cpus] if cpus else []
        self.command = pin + [part.format(config=config) for part in command]

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def start(self, read="/"):
        """Seconds from the start of the process to the answer of the first read, of a znode that is there."""
        log = open(os.path.join(self.directory, "log"), "ab")
        # Debian's configuration asks for a log file where only its own user may write.
        self.process = subprocess.Popen(self.command, cwd=self.directory, stdout=log, stderr=log)
        started = time.monotonic()
        log.close()
        # Java never answers a client that connects in a certain moment of its start, so do not wait for it long.
        patience_s = 0.1
        while True:
            try:
                client = Client(self.port, patience_s)
                found = client.exists(read)
                took = time.monotonic() - started
                client.close()
                if not found:
                    raise RuntimeError(f"{self.kind}: {read} is not there after the start")
                return took
            except OSError as error:
                if isinstance(error, TimeoutError):
                    patience_s = min(2 * patience_s, 5)
                self.check_alive()
                if time.monotonic() - started > START_LIMIT_S:
                    raise RuntimeError(f"{self.kind} does not answer after {START_LIMIT_S} s") from None
                time.sleep(0.001)

    def check_alive(self):
        if self.process.poll() is not None:
            with open(os.path.join(self.directory, "log"), errors="replace") as log:
                tail = log.read()[-2000:]
            raise RuntimeError(f"{self.kind} ended with {self.process.returncode}:\n{tail}")

    def stop(self, remove=True):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None
        if remove:
            shutil.rmtree(self.directory, ignore_errors=True)

    def cpu_s(self):
        """CPU seconds so far, user and system, of all threads: fields 14 and 15 of /proc/PID/stat."""
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND

    def resident_bytes(self):
        with open(f"/proc/{self.process.pid}/status") as file:
            for line in file:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        raise RuntimeError("no VmRSS")

    def connections(self):
        for line in word(self.port, "srvr").splitlines():
            if line.startswith("Connections:"):
                return int(line.split()[1])
        return 0


def java_command(heap):
    classpath = f"{JAVA_CONF}:{JAVA_JAR}"
    return ["java", f"-Xmx{heap}", "-cp", classpath, JAVA_MAIN, "{config}"]


def our_command(binary):
    return [binary, "server", "{config}"]
