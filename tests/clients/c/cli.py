"""Debian's command line of the C client, `cli_mt`, runs a script against Java's server and the one under test.
Commands answer asynchronously, so the lines are compared without their order, once times and ids are masked.

Usage: cli.py java|PATH
"""

import collections
import os
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from servers import HERE, SUPER, Server

CLI = "/usr/lib/zookeeper/bin/cli_mt"

# Between two commands: the next one is read while the reply of the last is on its way.
PAUSE_S = 0.15


def mask(line):
    line = re.sub(r"\b(ctime|mtime)=.*?(?=\t|  |$)", r"\1=TIME", line)
    line = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+:\d+\(0x[0-9a-f]+\):", "", line)
    line = re.sub(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun) .*\d{4}", "TIME", line)
    line = re.sub(r"0x1[0-9a-f]{14}", "SESSION", line)
    line = re.sub(r"127\.0\.0\.1:\d+", "SERVER", line)
    line = re.sub(r"\btime *= *-?\d+ *msec", "TOOK", line)
    return line.strip()


def run(server):
    process = subprocess.Popen(
        [CLI, server.address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        cwd=server.directory,
    )
    with open(os.path.join(HERE, "c/commands.txt")) as f:
        time.sleep(1)
        for line in f:
            process.stdin.write(line)
            process.stdin.flush()
            time.sleep(PAUSE_S)
    output, _ = process.communicate("quit\n", timeout=60)
    lines = [mask(line) for line in output.splitlines()]
    # What the client tells about itself: its build, its host, its process.
    return collections.Counter(line for line in lines if line and not line.startswith("ZOO_"))


def main(program):
    outputs = []
    for each in ("java", program):
        with Server(each, config=["extendedTypesEnabled=true"], properties=[SUPER]) as server:
            outputs.append(run(server))
    java, ours = outputs
    print(f"cli_mt: {sum(java.values())} lines")
    for line in java - ours:
        print(f"- {line}")
    for line in ours - java:
        print(f"+ {line}")
    assert sum(java.values()) > 60, "the script did not run to its end"
    return 0 if java == ours else 1


if __name__ == "__main__":
    if "--show" in sys.argv:
        with Server(sys.argv[1], config=["extendedTypesEnabled=true"]) as server:
            print("\n".join(run(server)))
        sys.exit(0)
    sys.exit(main(sys.argv[1]))
