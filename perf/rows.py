"""The rows of the comparison: what is run, what is read off, what was promised."""

import json
import os
import subprocess
import time
from dataclasses import dataclass, field


@dataclass
class Metric:
    """One number of a row, with what it must be."""

    name: str
    unit: str
    digits: int = 2
    # Ours, absolute.
    at_most: float | None = None
    at_least: float | None = None
    # Java's divided by ours (cost), ours divided by Java's (gain), ours divided by Java's at most (share).
    times_less: float | None = None
    times_more: float | None = None
    share_at_most: float | None = None
    more_is_better: bool = False

    def target(self):
        parts = []
        if self.at_most is not None:
            parts.append(f"≤ {self.at_most:g} {self.unit}".strip())
        if self.at_least is not None:
            parts.append(f"> {self.at_least:,.0f} {self.unit}".strip())
        if self.times_less is not None:
            parts.append(f"≥ {self.times_less:g}× less")
        if self.times_more is not None:
            parts.append(f"≥ {self.times_more:g}× more")
        if self.share_at_most is not None:
            parts.append(f"≤ {self.share_at_most:g}× Java's")
        return ", ".join(parts)

    def is_met(self, java, ours):
        """None: nothing was promised, or a number is missing."""
        checks = []
        if self.at_most is not None and ours is not None:
            checks.append(ours <= self.at_most)
        if self.at_least is not None and ours is not None:
            checks.append(ours > self.at_least)
        if java is not None and ours is not None:
            if self.times_less is not None:
                checks.append(java >= self.times_less * ours)
            if self.times_more is not None:
                checks.append(ours >= self.times_more * java)
            if self.share_at_most is not None:
                checks.append(ours <= self.share_at_most * java)
        return all(checks) if checks else None


def cpu(**target):
    return Metric("CPU per 100,000 ops", "s", 3, **target)


def rate(**target):
    return Metric("throughput", "ops/s", 0, more_is_better=True, **target)


def p50(**target):
    return Metric("p50", "µs", 0, **target)


P99 = Metric("p99", "µs", 0)


@dataclass
class Row:
    """`run` measures one fresh server and returns metric name → value."""

    name: str
    what: str
    metrics: list
    run: object
    arguments: dict = field(default_factory=dict)


class Bench:
    """The load generator: `oxkeeper bench`, in a process of its own."""

    def __init__(self, binary, cpus, threads):
        pin = ["taskset", "-c", cpus] if cpus else []
        self.command = [*pin, binary, "bench", "--threads", str(threads)]
        self.notes = []

    def start(self, server, json_file, arguments):
        command = [*self.command, "--servers", server.address, "--quiet", "--json", json_file]
        return subprocess.Popen(command + [str(part) for part in arguments])

    def run(self, server, *arguments):
        """The report of a whole run, and the server's CPU seconds meanwhile."""
        json_file = os.path.join(server.directory, "bench.json")
        before = server.cpu_s()
        process = self.start(server, json_file, arguments)
        if process.wait(3600) != 0:
            server.check_alive()
            raise RuntimeError(f"oxkeeper bench ended with {process.returncode}: {arguments}")
        used = server.cpu_s() - before
        with open(json_file) as file:
            report = json.load(file)
        self.judge(server, report["run"] or report["fill"])
        return report, used

    def judge(self, server, stage):
        """A number that was not measured cleanly is no number."""
        if stage["total"]["error_count"] or stage["protocol_violations"] or stage["connections_lost"]:
            self.notes.append(
                f"{server.kind}: {stage['total']['error_count']} errors {stage['total']['errors']}, "
                f"{stage['protocol_violations']} violations {stage['violations'][:2]}, "
                f"{stage['connections_lost']} connections lost"
            )
        if stage["generator"]["may_be_bottleneck"]:
            share = stage["generator"]["cpu_share"]
            self.notes.append(f"{server.kind}: the generator used {share:.0%} of its threads and may be the limit")


def run_load(server, bench, options, *, mix, sessions, depth):
    """A load on a fresh server: first unmeasured, so that Java's compiler has done its work, then measured."""
    server.start()
    shape = ["--mix", mix, "--sessions", sessions, "--depth", depth, "--value-size", 256, "--keys", 1000, "--keep"]
    bench.run(server, *shape, "--warmup", "0s", "--duration", f"{options.warmup}s")
    report, used = bench.run(server, *shape, "--warmup", "0s", "--duration", f"{options.duration}s")
    total = report["run"]["total"]
    return {
        "CPU per 100,000 ops": used / max(total["count"], 1) * 100_000,
        "throughput": total["per_second"],
        "p50": total["latency_us"]["p50"],
        "p99": total["latency_us"]["p99"],
    }


def fill(server, bench, options):
    """A server with many small znodes, and its resident memory before."""
    server.start()
    time.sleep(1)
    empty = server.resident_bytes()
    shape = ["--workload", "fill", "--fill", options.znodes, "--value-size", 100, "--keep"]
    report, _ = bench.run(server, *shape, "--sessions", 16, "--depth", 32, "--prefix", "/fill")
    return empty, report["fill"]["total"]


def run_memory(server, bench, options):
    empty, total = fill(server, bench, options)
    time.sleep(2)
    grown = server.resident_bytes() - empty
    return {"resident per znode": grown / total["count"], "creates": total["per_second"]}


def run_restart(server, bench, options):
    fill(server, bench, options)
    server.stop(remove=False)
    first_read = server.start(read="/fill")
    return {"start to first read": first_read, "resident": server.resident_bytes() / 2**20}


def run_sessions(server, bench, options):
    """Sessions that only ping: what each costs in resident memory."""
    server.start()
    time.sleep(1)
    empty = server.resident_bytes()
    json_file = os.path.join(server.directory, "bench.json")
    shape = ["--workload", "idle", "--sessions", options.sessions, "--session-timeout", "60s"]
    process = bench.start(server, json_file, [*shape, "--warmup", "0s", "--duration", "20s"])
    try:
        give_up = time.monotonic() + 120
        # The asking connection counts too.
        while server.connections() <= options.sessions:
            if process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"{server.kind}: {options.sessions} sessions do not stand")
            time.sleep(0.2)
        time.sleep(2)
        return {"resident per session": (server.resident_bytes() - empty) / options.sessions}
    finally:
        process.terminate()
        process.wait()


def run_empty(server, bench, options):
    first_read = server.start()
    time.sleep(2)
    resident = server.resident_bytes()
    before = server.cpu_s()
    time.sleep(options.idle)
    return {
        "start to first read": first_read * 1000,
        "resident": resident / 2**20,
        "idle CPU": (server.cpu_s() - before) / options.idle * 100,
    }


def load(name, what, metrics, mix, sessions, depth):
    return Row(name, what, metrics, run_load, {"mix": mix, "sessions": sessions, "depth": depth})


ROWS = [
    load("get-64x1", "get, 64 sessions, one request each", [cpu(at_most=0.70, times_less=3), rate(), p50(), P99], "get=100", 64, 1),
    load("get-16x32", "get, 16 sessions, 32 in flight", [cpu(times_less=25), rate(at_least=1_500_000), p50(), P99], "get=100", 16, 32),
    load("set-64x1", "set, 64 sessions, one request each", [cpu(times_less=4.5), rate(times_more=3), p50(), P99], "set=100", 64, 1),
    load("set-16x32", "set, 16 sessions, 32 in flight", [cpu(times_less=15), rate(times_more=6), p50(), P99], "set=100", 16, 32),
    load("set-1x1", "set, one session, one request", [p50(share_at_most=0.65), P99, rate(), cpu()], "set=100", 1, 1),
    load("mixed-64x1", "70 % get, 30 % set, 64 sessions", [cpu(times_less=4), rate(), p50(), P99], "get=70,set=30", 64, 1),
    Row(
        "znode-memory",
        "znodes of 100 bytes",
        [Metric("resident per znode", "bytes", 0, at_most=300), Metric("creates", "ops/s", 0, more_is_better=True)],
        run_memory,
    ),
    Row("session-memory", "idle sessions", [Metric("resident per session", "bytes", 0, at_most=2048)], run_sessions),
    Row(
        "restart",
        "restart with these znodes",
        [Metric("start to first read", "s", 2, at_most=0.8), Metric("resident", "MiB", 0)],
        run_restart,
    ),
    Row(
        "empty",
        "an empty server",
        [
            Metric("start to first read", "ms", 0, at_most=50),
            Metric("resident", "MiB", 1, at_most=20),
            Metric("idle CPU", "% of a core", 2, at_most=0),
        ],
        run_empty,
    ),
]
