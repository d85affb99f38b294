"""Java's zkCli.sh runs one script of every command against Java's server and against the one under test. What it
prints must be the same, once times and session ids are masked.

Usage: compare.py java|PATH
"""

import difflib
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from servers import HERE, SUPER, Server

CONFIG = ["extendedTypesEnabled=true"]


def mask(line):
    line = re.sub(r"(ctime|mtime) = .*", r"\1 = TIME", line)
    line = re.sub(r"0x1[0-9a-f]{14}", "SESSION", line)
    line = re.sub(r"127\.0\.0\.1:\d+", "SERVER", line)
    # Lists without an order.
    if re.fullmatch(r"\[[^\[\]]*\]", line):
        line = "[" + ", ".join(sorted(line[1:-1].split(", "))) + "]"
    return line.rstrip()


def sort_ids(lines):
    """The ids that `whoami` prints have no order either."""
    lines = list(lines)
    for start in [n + 1 for n, line in enumerate(lines) if line == "Auth scheme: User"]:
        end = start
        while end < len(lines) and re.fullmatch(r"(ip|digest|super): .*", lines[end]):
            end += 1
        lines[start:end] = sorted(lines[start:end])
    return lines


def run(server, script):
    environment = dict(os.environ, LC_ALL="C.UTF-8", TZ="UTC")
    environment["CLIENT_JVMFLAGS"] = "-Xmx256m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    result = subprocess.run(
        ["bash", "/usr/share/zookeeper/bin/zkCli.sh", "-server", server.address],
        input=script.replace("connect\n", f"connect {server.address}\n"), env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
    )
    lines = [mask(line) for line in result.stdout.splitlines() if line and not line.startswith("SLF4J")]
    # Events are printed by another thread, between any two lines of the commands.
    events = [line for line in lines if line.startswith("WatchedEvent")]
    # At its end the client prints that it is closed, or has ended before its event thread gets to that.
    if events and "state:Closed" in events[-1]:
        events.pop()
    replies = [line for line in lines if not line.startswith("WatchedEvent") and line != "WATCHER::"]
    return [f"exit status {result.returncode}", *sort_ids(replies)], events


def main(program):
    with open(os.path.join(HERE, "zkcli/commands.txt")) as f:
        script = "".join(line for line in f if not line.startswith("#"))
    outputs = []
    for each in ("java", program):
        with Server(each, config=CONFIG, properties=[SUPER]) as server:
            outputs.append(run(server, script))
    (java_replies, java_events), (replies, events) = outputs
    diff = list(difflib.unified_diff(java_replies, replies, "java", program, lineterm="", n=6))
    diff += difflib.unified_diff(java_events, events, "java's events", f"{program}'s events", lineterm="", n=6)
    print(f"zkCli.sh: {len(java_replies)} lines and {len(java_events)} events")
    print("\n".join(diff))
    assert len(java_replies) > 250, "the script did not run to its end:\n" + "\n".join(java_replies[-20:])
    return 1 if diff else 0


if __name__ == "__main__":
    if "--show" in sys.argv:
        with open(os.path.join(HERE, "zkcli/commands.txt")) as f, Server(sys.argv[1], config=CONFIG) as server:
            replies, events = run(server, "".join(line for line in f if not line.startswith("#")))
            print("\n".join(replies + events))
        sys.exit(0)
    sys.exit(main(sys.argv[1]))
