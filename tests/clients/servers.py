"""Servers as child processes: Debian's Java one, or ours. Loopback, a free port, a directory of its own."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

CLASSPATH = "/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-simple.jar"
HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
PYTHON = os.path.join(ROOT, "target/clients/venv/bin/python")

# `super:test`
SUPER = "-Dzookeeper.DigestAuthenticationProvider.superDigest=super:D/InIHSb7yEEbrWz8b9l71RjZJU="

START_LIMIT_S = 60


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def free_port_range(count):
    """The first of `count` neighbouring ports that were all free a moment ago."""
    while True:
        first = free_port()
        held = []
        try:
            for port in range(first, first + count):
                s = socket.socket()
                held.append(s)
                s.bind(("127.0.0.1", port))
            return first
        except (OSError, OverflowError):
            continue
        finally:
            for s in held:
                s.close()


def four_letter(port, word):
    with socket.create_connection(("127.0.0.1", port), timeout=5) as s:
        s.settimeout(10)
        s.sendall(word.encode())
        answer = b""
        while chunk := s.recv(65536):
            answer += chunk
    return answer.decode()


class Server:
    """`program` is "java" or the path of our binary. Use it in a `with`: its process is killed at the end."""

    def __init__(self, program, directory=None, config=(), properties=()):
        self.program = program
        self.is_own_directory = directory is None
        self.directory = directory or tempfile.mkdtemp(prefix="oxkeeper-clients-")
        self.config = list(config)
        self.properties = list(properties)
        self.process = None
        self.port = None

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    @property
    def data(self):
        return os.path.join(self.directory, "data")

    def start(self):
        for attempt in range(4):
            words = self._try_start(free_port())
            if words is None:
                return self
            if "address already in use" not in words.lower():
                break
        raise RuntimeError(f"{self.program} does not start:\n{words}")

    def launch(self, port):
        """Starts it on this port and does not wait: alone, a member of an ensemble never serves."""
        os.makedirs(self.data, exist_ok=True)
        config = os.path.join(self.directory, "zoo.cfg")
        lines = [
            f"dataDir={self.data}",
            f"clientPort={port}",
            "clientPortAddress=127.0.0.1",
            "4lw.commands.whitelist=*",
            "admin.enableServer=false",
            "maxClientCnxns=0",
            *self.config,
        ]
        if not any(line.startswith("tickTime") for line in lines):
            lines.append("tickTime=2000")
        with open(config, "w") as f:
            f.write("\n".join(lines) + "\n")
        log = open(self.log_path, "ab")
        environment = dict(os.environ)
        if self.program == "java":
            command = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]
            command += ["-Dzookeeper.jmx.log4j.disable=true", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
            command += [*self.properties, "-cp", CLASSPATH]
            command += ["org.apache.zookeeper.server.quorum.QuorumPeerMain", config]
        else:
            command = [self.program, "server", config]
            environment["SERVER_JVMFLAGS"] = " ".join(self.properties)
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=self.directory
        )
        log.close()
        self.port = port

    @property
    def log_path(self):
        return os.path.join(self.directory, f"{os.path.basename(self.program)}.log")

    def _try_start(self, port):
        log_start = os.path.getsize(self.log_path) if os.path.exists(self.log_path) else 0
        self.launch(port)
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if "Mode: " in four_letter(port, "srvr"):
                    return None
            except OSError:
                pass
            time.sleep(0.02)
        status = self.process.poll()
        self.kill()
        with open(self.log_path, "rb") as f:
            f.seek(log_start)
            return f"exit status {status}\n" + f.read().decode(errors="replace")

    def kill(self):
        """kill -9."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self):
        """SIGTERM, as an operator stops it. Returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RuntimeError(f"{self.program} does not end within 30 s of SIGTERM")
        self.process = None
        return status

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.kill()
        if self.is_own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)
