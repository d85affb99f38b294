"""One episode: writers at every server, something happens to one of these, and how long everybody noticed."""

import json
import os
import random
import re
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field

RATE = 250
WARMUP_S = 1
# Longest time until acknowledgements come again; then the run ends without.
RECOVERY_LIMIT_S = 60
# The moment of the break, behind the first measured second.
MOMENT_S = (0.1, 1.1)
# The share of what these servers acknowledged before that they must acknowledge in each of so many seconds: things are
# as before.
RECOVERED_SHARE = 0.6
RECOVERED_SECONDS = 2


@dataclass
class Break:
    """What happens to a server. Each of these takes the ensemble and the member."""

    name: str
    what: str
    # "leader" or "follower".
    victim: str
    do: object
    # While the writers go on: a server that comes back with old ideas must do no harm.
    undo_early: object = None
    # When they have ended.
    undo: object = None
    # It needs network namespaces.
    needs_namespaces: bool = False


def nothing(_, member):
    pass


def kill(_, member):
    member.signal(signal.SIGKILL)


def freeze(_, member):
    member.signal(signal.SIGSTOP)


def thaw(_, member):
    member.signal(signal.SIGCONT)


def stop(_, member):
    member.signal(signal.SIGTERM)


def start_again(_, member):
    member.wait()
    member.start()


def cut(ensemble, member):
    ensemble.network.cut(member.number)


def heal(ensemble, member):
    ensemble.network.heal(member.number)


BREAKS = [
    Break("kill", "kill -9 of the leader", "leader", kill, undo=start_again),
    Break("freeze", "SIGSTOP of the leader", "leader", freeze, undo_early=thaw),
    Break("vanish", "the leader's host vanishes", "leader", cut, undo_early=heal, needs_namespaces=True),
    Break("stop", "planned stop (SIGTERM) of the leader", "leader", stop, undo=start_again),
    Break("follower", "kill -9 of a follower", "follower", kill, undo=start_again),
    # What the machine itself does to the writers.
    Break("nothing", "nothing happens", "follower", nothing),
]


@dataclass
class Episode:
    """What came of it; times in ms. Clients are those of servers that nothing happened to."""

    pause: float
    # The longest gap of each client.
    gaps: list
    disconnects: int
    unknown: int
    expired: int
    errors: int
    # Over all writers.
    lost: int
    doubled: int
    # Of idle sessions at the other servers, where there are any.
    idle_disconnects: int = 0
    notes: list = field(default_factory=list)


class Load:
    """`oxkeeper bench` in a process of its own, and the seconds that it tells."""

    SECOND = re.compile(r"^\s*(\d+) s\s+([\d,]+) op/s")

    def __init__(self, binary, address, json_file, *arguments):
        command = [binary, "bench", "--servers", address, "--progress", "--json", json_file, *map(str, arguments)]
        self.json_file = json_file
        if os.path.exists(json_file):
            os.remove(json_file)
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        # (when it came, operations)
        self.seconds = []
        self.words = []
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stderr:
            if found := self.SECOND.match(line):
                self.seconds.append((time.monotonic(), int(found[2].replace(",", ""))))
            else:
                self.words.append(line.rstrip())

    def wait_until(self, is_there, limit_s, what):
        give_up = time.monotonic() + limit_s
        while not is_there():
            if self.process.poll() is not None:
                raise RuntimeError(f"bench has ended with {self.process.returncode}: {self.words[-5:]}")
            if time.monotonic() > give_up:
                return False
            time.sleep(0.01)
        return True

    def wait_running(self):
        if not self.wait_until(lambda: self.seconds, 60, "a first second"):
            raise RuntimeError(f"bench does not get going: {self.words[-5:]}")

    def wait_recovered(self, since, floor):
        """Until some whole seconds behind `since` have had at least `floor` operations each."""

        def is_there():
            fine = [count >= floor for at, count in self.seconds if at > since + 1]
            return fine.count(True) >= RECOVERED_SECONDS

        return self.wait_until(is_there, RECOVERY_LIMIT_S, "acknowledgements")

    def end(self, limit_s=120):
        """Its report; the exit status is 1 when writes were lost or doubled, which the report says as well."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RuntimeError("bench does not end") from None
        self.reader.join(5)
        if not os.path.exists(self.json_file):
            raise RuntimeError(f"bench has left no report: {self.words[-5:]}")
        with open(self.json_file) as file:
            return json.load(file)

    def kill(self):
        self.process.kill()
        self.process.wait()


def meet(gaps, others):
    """The intervals that two sorted lists of disjoint intervals have in common."""
    found, i, j = [], 0, 0
    while i < len(gaps) and j < len(others):
        start, end = max(gaps[i][0], others[j][0]), min(gaps[i][1], others[j][1])
        if start < end:
            found.append((start, end))
        if gaps[i][1] < others[j][1]:
            i += 1
        else:
            j += 1
    return found


def longest(gaps, window, floor):
    """The longest of the intervals that lie in the window with a part; what is shorter than `floor` was not told."""
    inside = [end - start for start, end in gaps if end > window[0] and start < window[1]]
    return max(inside, default=floor)


class IdleSessions:
    """Sessions at every server that only ping."""

    def __init__(self, ensemble, binary, sessions):
        self.loads = []
        share = sessions // len(ensemble.members)
        if not share:
            return
        for member in ensemble.members:
            json_file = os.path.join(ensemble.directory, f"idle-{member.number}.json")
            shape = ["--workload", "idle", "--sessions", share, "--duration", "1h", "--warmup", "0s"]
            self.loads.append(Load(binary, member.address, json_file, *shape, "--prefix", f"/idle{member.number}"))
        for load in self.loads:
            load.wait_running()

    def end(self, victim):
        """Connections that were lost at the other servers."""
        lost = 0
        for number, load in enumerate(self.loads):
            run = load.end()["run"]
            if number != victim.number:
                lost += run["connections_lost"] + run["sessions_expired"]
        return lost

    def kill(self):
        for load in self.loads:
            load.kill()


def run(ensemble, how, binary, sessions=0):
    """One episode on a healthy ensemble, which is healthy again afterwards."""
    leader = ensemble.wait_healthy()
    others = [member for member in ensemble.members if member is not leader]
    victim = leader if how.victim == "leader" else random.choice(others)
    survivors = [member for member in ensemble.members if member is not victim]
    idle = IdleSessions(ensemble, binary, sessions)
    json_file = os.path.join(ensemble.directory, "failover.json")
    shape = ["--workload", "failover", "--rate", RATE, "--duration", "10m", "--warmup", f"{WARMUP_S}s"]
    load = Load(binary, ensemble.address, json_file, *shape, "--prefix", "/failover")
    notes = []
    try:
        load.wait_running()
        time.sleep(random.uniform(*MOMENT_S))
        before = load.seconds[-1][1] * len(survivors) / len(ensemble.members)
        broken_ms, broken = time.time() * 1000, time.monotonic()
        how.do(ensemble, victim)
        if not load.wait_recovered(broken, RECOVERED_SHARE * before):
            notes.append(f"not as before within {RECOVERY_LIMIT_S} s")
        window = (broken_ms, time.time() * 1000)
        if how.undo_early:
            how.undo_early(ensemble, victim)
            time.sleep(1)
        idle_disconnects = idle.end(victim)
        report = load.end()
    except BaseException:
        load.kill()
        idle.kill()
        raise
    if how.undo:
        how.undo(ensemble, victim)
    ensemble.wait_healthy()
    return judge(report["failover"], victim, window, idle_disconnects, notes)


def judge(report, victim, window, idle_disconnects, notes):
    origin, floor = report["measured_from_ms"], report["gap_told_ms"]
    writers = [writer for number, writer in enumerate(report["writers"]) if number != victim.number]
    gaps = [[(origin + start, origin + start + length) for start, length in writer["gaps"]] for writer in writers]
    common = gaps[0]
    for more in gaps[1:]:
        common = meet(common, more)
    for writer in report["writers"]:
        notes += writer["findings"]
    if report["unread"]:
        notes.append(f"not read back: {report['unread']}")

    def total(key):
        return sum(writer[key] for writer in writers)

    return Episode(
        pause=longest(common, window, floor),
        gaps=[longest(mine, window, floor) for mine in gaps],
        disconnects=total("disconnects"),
        unknown=total("unknown"),
        expired=total("expired"),
        errors=sum(sum(writer["errors"].values()) for writer in writers),
        lost=report["lost"],
        doubled=report["doubled"],
        idle_disconnects=idle_disconnects,
        notes=notes,
    )
