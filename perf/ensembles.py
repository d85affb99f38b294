"""Ensembles under measurement: three servers or more on this machine, each with its own directory, and ways to break one.

The network is loopback, or a bridge with a network namespace for each server, from which a whole host can vanish.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import time

import servers

START_LIMIT_S = 120

ZOO_CFG = """\
tickTime=2000
initLimit=10
syncLimit=5
dataDir={data}
clientPort={port}
clientPortAddress={host}
maxClientCnxns=0
globalOutstandingLimit=100000
maxSessionTimeout=120000
forceSync=yes
admin.enableServer=false
4lw.commands.whitelist=*
"""


class Loopback:
    """All servers at 127.0.0.1."""

    def __init__(self, size):
        self.hosts = ["127.0.0.1"] * size

    def prefix(self, _):
        return []

    def close(self):
        pass


class Namespaces:
    """A namespace with an address of its own for each server, on one bridge with this process."""

    MISSING = "no `ip` (iproute2)"
    NOT_ROOT = "network namespaces need root"

    @staticmethod
    def why_not():
        """Why there can be none here; None if there can."""
        if not shutil.which("ip"):
            return Namespaces.MISSING
        if os.geteuid() != 0:
            return Namespaces.NOT_ROOT
        name = f"oxprobe{os.getpid()}"
        probe = subprocess.run(["ip", "link", "add", name, "type", "bridge"], capture_output=True, text=True)
        if probe.returncode != 0:
            return f"no bridges here: {probe.stderr.strip()}"
        subprocess.run(["ip", "link", "delete", name])
        probe = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
        if probe.returncode != 0:
            return f"no network namespaces here: {probe.stderr.strip()}"
        subprocess.run(["ip", "netns", "delete", name])
        return None

    def __init__(self, size):
        # Names of interfaces have 15 characters at most.
        self.name = f"ox{os.getpid() % 100_000}"
        self.subnet = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"
        self.hosts = [f"{self.subnet}.{number + 1}" for number in range(size)]
        try:
            self.ip("link", "add", self.name, "type", "bridge")
            self.ip("address", "add", f"{self.subnet}.254/24", "dev", self.name)
            self.ip("link", "set", self.name, "up")
            for number in range(size):
                self.add(number)
        except BaseException:
            self.close()
            raise

    def add(self, number):
        space, outside, inside = self.space(number), self.outside(number), f"{self.name}i{number}"
        self.ip("netns", "add", space)
        self.ip("link", "add", outside, "type", "veth", "peer", "name", inside)
        self.ip("link", "set", inside, "netns", space)
        self.ip("link", "set", outside, "master", self.name, "up")
        self.ip("-n", space, "address", "add", f"{self.hosts[number]}/24", "dev", inside)
        self.ip("-n", space, "link", "set", inside, "up")
        self.ip("-n", space, "link", "set", "lo", "up")

    @staticmethod
    def ip(*arguments, check=True):
        subprocess.run(["ip", *arguments], check=check, capture_output=not check)

    def space(self, number):
        return f"{self.name}n{number}"

    def outside(self, number):
        return f"{self.name}o{number}"

    def prefix(self, number):
        return ["ip", "netns", "exec", self.space(number)]

    def cut(self, number):
        """The host is gone: nothing reaches it, nothing comes from it, and nobody is told."""
        self.ip("link", "set", self.outside(number), "down")

    def heal(self, number):
        self.ip("link", "set", self.outside(number), "up")

    def close(self):
        for number in range(len(self.hosts)):
            self.ip("netns", "delete", self.space(number), check=False)
            self.ip("link", "delete", self.outside(number), check=False)
        self.ip("link", "delete", self.name, check=False)


class Member:
    """One server of an ensemble, numbered from 0; its `myid` is one more."""

    def __init__(self, number, kind, command, directory, host, ports, pin):
        self.number, self.kind, self.directory, self.host = number, kind, directory, host
        self.port, self.quorum_port, self.election_port = ports
        self.pin = pin
        self.command = command
        self.process = None

    @property
    def address(self):
        return f"{self.host}:{self.port}"

    def write_config(self, members):
        data = os.path.join(self.directory, "data")
        os.makedirs(data)
        with open(os.path.join(data, "myid"), "w") as file:
            file.write(f"{self.number + 1}\n")
        lines = [f"server.{m.number + 1}={m.host}:{m.quorum_port}:{m.election_port}\n" for m in members]
        with open(self.config, "w") as file:
            file.write(ZOO_CFG.format(data=data, port=self.port, host=self.host) + "".join(lines))

    @property
    def config(self):
        return os.path.join(self.directory, "zoo.cfg")

    def start(self):
        log = open(os.path.join(self.directory, "log"), "ab")
        command = [*self.pin, *(part.format(config=self.config) for part in self.command)]
        self.process = subprocess.Popen(command, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def wait(self, limit_s=60):
        """Waits for an end that was asked for."""
        try:
            self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RuntimeError(f"{self.kind} {self.number} does not end within {limit_s} s") from None
        self.process = None

    def word(self, text, timeout_s=2):
        """A four-letter word's answer; empty when there is none."""
        try:
            with socket.create_connection((self.host, self.port), timeout=timeout_s) as connection:
                connection.sendall(text.encode())
                answer = b""
                while part := connection.recv(65536):
                    answer += part
                return answer.decode(errors="replace")
        except OSError:
            return ""

    def mode(self):
        """leader, follower, observer, or None while it serves nobody."""
        found = re.search(r"^Mode: (\w+)", self.word("srvr"), re.M)
        return found and found[1]

    def metrics(self):
        """`mntr`, with its numbers."""
        lines = (line.split("\t") for line in self.word("mntr").splitlines())
        return {line[0]: line[1] for line in lines if len(line) == 2}

    def connections(self):
        found = re.search(r"^Connections: (\d+)", self.word("srvr"), re.M)
        return int(found[1]) if found else 0

    def cpu_s(self):
        """CPU seconds so far, user and system, of all threads: fields 14 and 15 of /proc/PID/stat."""
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / servers.TICKS_PER_SECOND

    def check_alive(self):
        if self.process is not None and self.process.poll() is not None:
            with open(os.path.join(self.directory, "log"), errors="replace") as log:
                tail = log.read()[-2000:]
            raise RuntimeError(f"{self.kind} {self.number} ended with {self.process.returncode}:\n{tail}")


class Ensemble:
    """`command` is one server's, with {config} in it. Close it, or its processes stay."""

    def __init__(self, kind, command, directory, size=3, network=None, cpus=None):
        self.kind, self.directory = kind, directory
        self.network = network or Loopback(size)
        used = set()
        pin = ["taskset", "-c", cpus] if cpus else []

        def port():
            while (free := servers.free_port()) in used:
                pass
            used.add(free)
            return free

        self.members = []
        for number, host in enumerate(self.network.hosts):
            home = os.path.join(directory, f"server-{number + 1}")
            ports = (port(), port(), port())
            prefix = [*self.network.prefix(number), *pin]
            self.members.append(Member(number, kind, command, home, host, ports, prefix))
        for member in self.members:
            member.write_config(self.members)

    @property
    def address(self):
        return ",".join(member.address for member in self.members)

    def start(self):
        for member in self.members:
            member.start()
        return self.wait_healthy()

    def wait_healthy(self, limit_s=START_LIMIT_S):
        """Until there are one leader and followers otherwise, and no client of the servers finds a closed door."""
        give_up = time.monotonic() + limit_s
        while True:
            self.check_alive()
            modes = [member.mode() for member in self.members]
            if sorted(mode or "" for mode in modes) == ["follower"] * (len(modes) - 1) + ["leader"]:
                if all(self.greets(member) for member in self.members):
                    return self.members[modes.index("leader")]
            if time.monotonic() > give_up:
                raise RuntimeError(f"{self.kind}: no healthy ensemble after {limit_s} s: {modes}")
            time.sleep(0.05)

    @staticmethod
    def greets(member):
        """Whether it gives sessions."""
        try:
            client = servers.Client(member.port, 2, member.host)
            client.close()
            return True
        except OSError:
            return False

    def check_alive(self):
        for member in self.members:
            member.check_alive()

    def cpu_s(self):
        return sum(member.cpu_s() for member in self.members if member.process)

    def stop(self, remove=True):
        for member in self.members:
            if member.process and member.process.poll() is None:
                # A frozen one would never hear the other signal.
                member.signal(signal.SIGCONT)
                member.signal(signal.SIGTERM)
        for member in self.members:
            if member.process:
                try:
                    member.wait(20)
                except RuntimeError:
                    pass
        self.network.close()
        if remove:
            shutil.rmtree(self.directory, ignore_errors=True)
