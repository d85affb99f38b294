"""The table, and the file under perf/results/ that can be believed in a year."""

import os
import platform
import statistics
import subprocess


def number(value, digits):
    return "–" if value is None else f"{value:,.{digits}f}"


def spread(values, digits):
    """Median, and the range behind it if there is one."""
    if not values:
        return "–"
    text = number(statistics.median(values), digits)
    if len(values) > 1:
        text += f" ({number(min(values), digits)}–{number(max(values), digits)})"
    return text


def ratio(metric, java, ours):
    if java is None or ours is None:
        return "–"
    above, below = (ours, java) if metric.more_is_better else (java, ours)
    if not below:
        return "∞" if above else "–"
    return f"{above / below:.2f}×"


def table(rows, results, kinds):
    """`results[(row, metric, kind)]` is the list of what the rounds gave; `kinds` were to be measured.

    Also returns how many promises are broken; one whose numbers are missing is."""
    lines = ["| row | metric | Java | Oxkeeper | better by | target | met |", "|---|---|---|---|---|---|---|"]
    unmet = 0
    for row in rows:
        for i, metric in enumerate(row.metrics):
            values = {kind: results.get((row.name, metric.name, kind), []) for kind in ("java", "ours")}
            java, ours = (statistics.median(values[kind]) if values[kind] else None for kind in ("java", "ours"))
            met = metric.is_met(java, ours)
            missing = metric.target() and any(not values[kind] for kind in kinds)
            verdict = "**not measured**" if missing else {True: "yes", False: "**no**", None: ""}[met]
            unmet += verdict.startswith("*")
            cells = [
                f"{row.name}: {row.what}" if i == 0 else "",
                f"{metric.name}, {metric.unit}",
                spread(values["java"], metric.digits),
                spread(values["ours"], metric.digits),
                ratio(metric, java, ours),
                metric.target(),
                verdict,
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines), unmet


def output(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def commit(root):
    text = output("git", "-C", root, "rev-parse", "HEAD")
    return text + (" with changes" if output("git", "-C", root, "status", "--porcelain", "-uno") else "")


def machine(directory):
    model = "unknown CPU"
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    disk = output("findmnt", "-no", "SOURCE,FSTYPE,OPTIONS", "-T", directory)
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} cores, {memory_gib:.0f} GiB, {platform.system()} {platform.release()}; data on {disk}"


def java_version():
    try:
        text = subprocess.run(["java", "-version"], capture_output=True, text=True, check=True).stderr
        runtime = text.splitlines()[1].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        runtime = "unknown JVM"
    return f"{output('dpkg-query', '-W', '-f', '${Version}', 'libzookeeper-java')} on {runtime}"
