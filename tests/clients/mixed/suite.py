"""Ensembles of Java's servers and ours together: either side leads, any member is killed, and a whole ensemble is
replaced, one server at a time, under load.

Usage: suite.py PATH [scenario...]     PATH: our binary; `java` checks the suite itself against Java's servers alone
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from ensemble import Ensemble
from history import Broken, Load

JAVA = "java"


def kill_each(ensemble, load):
    """kill -9 of every member in turn, whoever leads by then."""
    for member in list(ensemble.members):
        was = member.mode()
        member.kill()
        others = [other for other in ensemble.members if other is not member]
        leader = ensemble.wait_healthy(others)
        load.check_progress()
        member.launch()
        ensemble.wait_healthy()
        load.check_progress()
        print(f"  {member.kind} {member.number}, {was}, was killed: {leader.kind} {leader.number} leads", flush=True)


def freeze_leader(ensemble, load):
    """The leader sleeps until there is another, and wakes up with its old ideas."""
    leader = ensemble.wait_healthy()
    others = [other for other in ensemble.members if other is not leader]
    leader.signal(signal.SIGSTOP)
    try:
        now = ensemble.wait_healthy(others)
        load.check_progress()
    finally:
        leader.signal(signal.SIGCONT)
    ensemble.wait_healthy()
    load.check_progress()
    print(f"  {leader.kind} {leader.number} was frozen: {now.kind} {now.number} leads", flush=True)


def voters(programs, leader, ours):
    """Server `leader`, which has the highest number of the first two, leads at first; then members die."""
    kind = "java" if programs[leader - 1] == JAVA else "ours"
    with Ensemble(programs) as ensemble:
        found = ensemble.start([leader - 1, leader])
        if found.number != leader or found.kind != kind:
            raise Broken(f"{found.kind} {found.number} leads where {kind} {leader} should")
        with Load(ensemble.addresses) as load, Writers(ours, ensemble) as writers:
            load.check_progress()
            kill_each(ensemble, load)
            freeze_leader(ensemble, load)
            writers.check()
            print(f"  {load.check()}", flush=True)


def observer(programs, ours):
    """The last one does not vote; it and the others die."""
    with Ensemble(programs, observers=1) as ensemble:
        ensemble.start([1, 2])
        if ensemble.members[-1].mode() != "observer":
            raise Broken("nobody observes")
        with Load(ensemble.addresses) as load, Writers(ours, ensemble) as writers:
            load.check_progress()
            kill_each(ensemble, load)
            writers.check()
            print(f"  {load.check()}", flush=True)


def rolling(programs, ours):
    """Java → ours → Java, one server at a time, the leader last, as an operator does it."""
    with Ensemble([JAVA] * 3) as ensemble:
        ensemble.start([1, 2, 3])
        with Load(ensemble.addresses) as load, Writers(ours, ensemble) as writers:
            load.check_progress()
            for program in programs:
                replace_all(ensemble, program, load)
            writers.check()
            print(f"  {load.check()}", flush=True)


def replace_all(ensemble, program, load):
    leader = ensemble.wait_healthy()
    for member in sorted(ensemble.members, key=lambda member: member is leader):
        was = f"{member.kind} {member.number}, {member.mode()}"
        member.stop()
        load.check_progress(0)
        member.launch(program)
        now = ensemble.wait_healthy()
        load.check_progress()
        print(f"  {was}, became {member.kind} {member.mode()}: {now.kind} {now.number} leads", flush=True)


class Writers:
    """A paced writer at each server: `oxkeeper bench --workload failover`, which proves that nothing is lost or doubled."""

    def __init__(self, binary, ensemble):
        self.binary, self.ensemble, self.process = binary, ensemble, None
        self.report = os.path.join(ensemble.directory, "writers.json")

    def __enter__(self):
        if self.binary:
            servers = ",".join(member.address for member in self.ensemble.members)
            command = [self.binary, "bench", "--workload", "failover", "--servers", servers, "--rate", "50", "--depth", "4"]
            command += ["--duration", "1h", "--warmup", "0s", "--session-timeout", "60s", "--quiet", "--json", self.report]
            self.words = tempfile.TemporaryFile("w+")
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self.words)
        return self

    def __exit__(self, *_):
        if self.process:
            self.process.kill()
            self.process.wait()

    def check(self):
        if not self.process:
            return
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(120)
        self.words.seek(0)
        if status != 0:
            raise Broken(f"writers ended with {status}:\n{self.words.read()}")
        with open(self.report) as file:
            writers = json.load(file)["failover"]["writers"]
        expired = sum(writer["expired"] for writer in writers)
        if expired:
            raise Broken(f"{expired} sessions of writers have expired")
        told = ", ".join(f"{writer['acknowledged']} with {writer['disconnects']} disconnects" for writer in writers)
        print(f"  writers: {told}", flush=True)


def scenarios(ours):
    """Our binary stands for `ours`; with `java` all servers are Java's."""
    other = ours or JAVA
    return {
        "two Java, ours leads": lambda: voters([JAVA, JAVA, other], 3, ours),
        "two Java, Java leads": lambda: voters([other, JAVA, JAVA], 3, ours),
        "two ours, ours lead": lambda: voters([JAVA, other, other], 3, ours),
        "two ours, Java leads": lambda: voters([other, other, JAVA], 3, ours),
        "ours observes": lambda: observer([JAVA, JAVA, JAVA, other], ours),
        "Java observes": lambda: observer([other, other, other, JAVA], ours),
        "rolling replacement": lambda: rolling([other, JAVA], ours),
    }


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    ours = None if sys.argv[1] == JAVA else os.path.abspath(sys.argv[1])
    all_of_them = scenarios(ours)
    unknown = set(sys.argv[2:]) - set(all_of_them)
    if unknown:
        sys.exit(f"no such scenario: {unknown}; there are {list(all_of_them)}")
    failed = []
    for name in sys.argv[2:] or all_of_them:
        start = time.monotonic()
        print(f"{name} …", flush=True)
        try:
            all_of_them[name]()
            print(f"{name}: ok, {time.monotonic() - start:.0f} s", flush=True)
        except (Broken, RuntimeError, AssertionError, subprocess.SubprocessError) as error:
            failed.append(name)
            print(f"{name}: FAILED: {error}", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
