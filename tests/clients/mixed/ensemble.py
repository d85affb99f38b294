"""Ensembles whose servers are Java's or ours, each as it likes, on loopback."""

import os
import random
import re
import shutil
import signal
import socket
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from servers import Server, four_letter

HEALTH_LIMIT_S = 120
CONFIG = [
    "tickTime=1000",
    "initLimit=20",
    "syncLimit=10",
    "minSessionTimeout=2000",
    "maxSessionTimeout=120000",
    # Small: so that changes of program meet snapshots and several log files.
    "snapCount=2000",
]


def free_ports(count):
    """Ports below the range that connecting sockets take theirs from: a server that was down finds its own again."""
    held = []
    try:
        while len(held) < count:
            probe = socket.socket()
            try:
                probe.bind(("127.0.0.1", random.randrange(10_000, 32_000)))
                held.append(probe)
            except OSError:
                probe.close()
        return [probe.getsockname()[1] for probe in held]
    finally:
        for probe in held:
            probe.close()


class Member:
    """One server; its number is its `myid`."""

    def __init__(self, number, program, directory, ports, lines):
        self.number = number
        self.port = ports[0]
        self.server = Server(program, os.path.join(directory, f"server-{number}"), [*CONFIG, *lines])
        os.makedirs(self.server.data)
        with open(os.path.join(self.server.data, "myid"), "w") as file:
            file.write(f"{number}\n")

    @property
    def program(self):
        return self.server.program

    @property
    def kind(self):
        return "java" if self.program == "java" else "ours"

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def launch(self, program=None):
        self.server.program = program or self.program
        self.server.launch(self.port)

    def is_running(self):
        return self.server.is_running()

    def mode(self):
        """leader, follower, observer, or None while it serves nobody."""
        if not self.is_running():
            return None
        try:
            found = re.search(r"^Mode: (\w+)", four_letter(self.port, "srvr"), re.M)
            return found and found[1]
        except OSError:
            return None

    def kill(self):
        self.server.kill()

    def stop(self):
        return self.server.stop()

    def signal(self, number):
        self.server.process.send_signal(number)

    def last_words(self):
        words = f"--- server {self.number}, {self.kind}, {self.mode()}\n"
        for name in sorted(os.listdir(self.server.directory)):
            if name.endswith(".log"):
                with open(os.path.join(self.server.directory, name), errors="replace") as log:
                    words += f"{name}:\n{''.join(log.readlines()[-40:])}"
        return words


class Ensemble:
    """`programs`: "java" or the path of our binary, for server 1, 2, …; the last `observers` do not vote.

    Use it in a `with`: its processes are killed at the end."""

    def __init__(self, programs, observers=0):
        self.directory = tempfile.mkdtemp(prefix="oxkeeper-mixed-")
        count = len(programs)
        ports = free_ports(3 * count)
        lines = []
        for number in range(1, count + 1):
            role = ":observer" if number > count - observers else ""
            lines.append(f"server.{number}=127.0.0.1:{ports[3 * number - 2]}:{ports[3 * number - 1]}{role}")
        self.members = []
        for number, program in enumerate(programs, 1):
            own = [*lines, "peerType=observer"] if number > count - observers else lines
            self.members.append(Member(number, program, self.directory, ports[3 * number - 3 :], own))

    @property
    def addresses(self):
        return [("127.0.0.1", member.port) for member in self.members]

    def member(self, number):
        return self.members[number - 1]

    def start(self, first):
        """Starts the servers of these numbers, waits for their quorum, and starts the others: who leads is then known,
        for of servers without history the one with the highest number leads."""
        for number in first:
            self.member(number).launch()
        self.wait_healthy([self.member(number) for number in first])
        for member in self.members:
            if member.number not in first:
                member.launch()
        return self.wait_healthy()

    def wait_healthy(self, members=None):
        """Until one of these leads and all others follow or observe; gives the leader."""
        members = self.members if members is None else members
        give_up = time.monotonic() + HEALTH_LIMIT_S
        while True:
            modes = [member.mode() for member in members]
            if modes.count("leader") == 1 and None not in modes:
                return members[modes.index("leader")]
            for member in members:
                if not member.is_running():
                    raise RuntimeError(f"server {member.number} has ended\n{self.last_words()}")
            if time.monotonic() > give_up:
                raise RuntimeError(f"no healthy ensemble within {HEALTH_LIMIT_S} s: {modes}\n{self.last_words()}")
            time.sleep(0.05)

    def last_words(self):
        return "\n".join(member.last_words() for member in self.members)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for member in self.members:
            if member.is_running():
                member.signal(signal.SIGCONT)
            member.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
