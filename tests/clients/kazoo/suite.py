"""kazoo's own suite, unmodified, from its package. Its harness starts servers with `java … QuorumPeerMain zoo.cfg`;
for our binary a shim named `java` comes first on the PATH.

Usage: suite.py java|PATH [pytest arguments]
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from servers import CLASSPATH, HERE, PYTHON, free_port_range

# What our server does not have yet and therefore refuses at start.
DROPPED_SETTINGS = "secureClientPort|ssl\\.|serverCnxnFactory|authProvider\\."

# Debian's zookeeper.jar does not name all that its Netty transport needs.
NETTY = ":".join(f"/usr/share/java/netty-{part}.jar" for part in ("codec", "resolver", "all"))

# What each says of itself in `srvr` and `envi`. Debian's is 3.8.0.
VERSIONS = {"java": "3.8.0", "ours": "3.9.5"}

# More failures than this are no accident.
AGAIN_MAX = 5

# What is shown of the servers' words.
ERROR_LINES = 60


def read_skipped(program):
    """`skipped.txt`: `<who> <test> <reason>`; who is `all`, or `ours` when Java passes it."""
    skipped = {}
    with open(os.path.join(HERE, "kazoo/skipped.txt")) as f:
        for line in f:
            if line.strip() and not line.startswith("#"):
                who, test, reason = line.split(None, 2)
                if who == "all" or program != "java":
                    skipped[test] = reason.strip()
    return skipped


def main(program, arguments):
    skipped = read_skipped(program)
    directory = tempfile.mkdtemp(prefix="oxkeeper-kazoo-")
    environment = dict(
        os.environ,
        # With `CI` set, kazoo also checks the version, and picks its tests by it; the same everywhere.
        CI="true",
        ZOOKEEPER_VERSION=VERSIONS["java" if program == "java" else "ours"],
        ZOOKEEPER_CLASSPATH=f"{CLASSPATH}:{NETTY}",
        ZOOKEEPER_CLUSTER_SIZE="3",
        ZOOKEEPER_PORT_OFFSET=str(free_port_range(40)),
        TMPDIR=directory,
        LC_ALL="C.UTF-8",
    )
    if program != "java":
        environment["PATH"] = os.path.join(HERE, "shim") + os.pathsep + environment["PATH"]
        environment["JAVA_REAL"] = shutil.which("java")
        environment["OXKEEPER"] = program
        environment["OXKEEPER_DROPPED_SETTINGS"] = DROPPED_SETTINGS
    report = os.path.join(directory, "report.xml")
    command = [PYTHON, "-m", "pytest", "-q", "--tb=short", "--show-capture=no", "-W", "ignore", "--timeout=120", "-p", "no:cacheprovider"]
    command += [f"--junitxml={report}", "--durations=5", "--pyargs", "kazoo.tests"]
    # kazoo's modules are named by their place in the package, tests in skipped.txt as module::Class::test.
    package = subprocess.run(
        [PYTHON, "-c", "import kazoo.tests, os; print(os.path.dirname(kazoo.tests.__file__))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()
    command += [f"--rootdir={package}", *(f"--deselect={test}" for test in skipped), *arguments]
    try:
        status = run_pytest(command, environment, directory)
        print_skipped(report, skipped)
        failed = failures(report)
        # Many of these tests wait for fixed times. One that failed on a busy machine may try once more, alone.
        if status == 1 and 0 < len(failed) <= AGAIN_MAX:
            again = " or ".join(f"({case} and {name})" for case, name in failed)
            print(f"again, each having failed once: {again}", flush=True)
            status = run_pytest([*command, "-k", again], environment, directory)
        return status
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def run_pytest(command, environment, directory):
    """pytest reports on its standard output. The other one has servers' and clients' words, thousands of them, which
    are of interest after a failure."""
    errors = os.path.join(directory, "errors.txt")
    with open(errors, "w") as f:
        status = subprocess.run(command, env=environment, cwd=directory, stderr=f).returncode
    if status != 0:
        with open(errors, errors="replace") as f:
            print("".join(f.readlines()[-ERROR_LINES:]))
    return status


def failures(report):
    """Class and name of each test that failed."""
    failed = []
    if os.path.exists(report):
        for case in xml.etree.ElementTree.parse(report).iter("testcase"):
            if case.find("failure") is not None or case.find("error") is not None:
                failed.append((case.get("classname", "").rpartition(".")[2], case.get("name")))
    return failed


def print_skipped(report, skipped):
    for test, reason in skipped.items():
        print(f"skipped {test}: {reason}")
    if os.path.exists(report):
        for case in xml.etree.ElementTree.parse(report).iter("testcase"):
            for reason in case.iter("skipped"):
                name = re.sub(r"^.*\.", "", case.get("classname", ""))
                print(f"skipped by kazoo {name}::{case.get('name')}: {reason.get('message')}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
