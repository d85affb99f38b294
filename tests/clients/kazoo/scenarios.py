"""What people build on ZooKeeper, with kazoo's recipes, each from at least two clients.

Usage: scenarios.py HOST:PORT (with the Python of target/clients/venv)
"""

import collections
import logging
import queue
import sys
import threading
import time

from kazoo.client import KazooClient
from kazoo.exceptions import CancelledError, ConnectionClosedError, LockTimeout
from kazoo.recipe.watchers import PatientChildrenWatch
from kazoo.security import make_digest_acl

PATIENCE_S = 30
# Long enough to be sure that somebody waits, in tests that must see nothing happen.
MOMENT_S = 0.3

ADDRESS = sys.argv[1]
logging.basicConfig(level=logging.CRITICAL)


def connect(**options):
    client = KazooClient(ADDRESS, timeout=20, **options)
    client.start(PATIENCE_S)
    return client


def in_threads(*functions):
    """Runs all at once and hands on the first exception."""
    errors = []

    def run(function):
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(function,), daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "still running"
    if errors:
        raise errors[0]


def eventually(what, holds):
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def naming(one, two):
    """Every name is given once, whoever asks."""
    one.ensure_path("/k/naming")
    names = []

    def take(client):
        mine = [client.create("/k/naming/id-", sequence=True) for _ in range(50)]
        assert mine == sorted(mine)
        names.extend(mine)

    in_threads(lambda: take(one), lambda: take(two))
    assert sorted(names) == [f"/k/naming/id-{n:010}" for n in range(100)]


def configuration(one, two):
    """What one client sets, another hears: each value in its order, through DataWatch and a plain watch."""
    one.create("/k/configuration", b"v0", makepath=True)
    pushed = queue.Queue()
    two.DataWatch("/k/configuration", lambda data, stat: pushed.put(data))
    assert pushed.get(timeout=PATIENCE_S) == b"v0"
    for n in range(1, 6):
        one.set("/k/configuration", b"v%d" % n)
        assert pushed.get(timeout=PATIENCE_S) == b"v%d" % n
    events = queue.Queue()
    two.get("/k/configuration", watch=events.put)
    one.set("/k/configuration", b"last")
    event = events.get(timeout=PATIENCE_S)
    assert (event.type, event.path) == ("CHANGED", "/k/configuration")
    assert pushed.get(timeout=PATIENCE_S) == b"last"
    one.delete("/k/configuration")
    assert pushed.get(timeout=PATIENCE_S) is None


def membership(one, two):
    """Who is there is seen by all; who goes is missed by all."""
    leaving = connect()
    parties = [client.Party("/k/party", name) for client, name in ((one, "one"), (two, "two"), (leaving, "three"))]
    for party in parties:
        party.join()
    assert sorted(parties[0]) == ["one", "three", "two"]
    seen = queue.Queue()
    one.ChildrenWatch("/k/party", lambda names: seen.put(len(names)))
    assert seen.get(timeout=PATIENCE_S) == 3
    leaving.stop()
    assert seen.get(timeout=PATIENCE_S) == 2
    assert sorted(parties[1]) == ["one", "two"]
    parties[0].leave()
    assert seen.get(timeout=PATIENCE_S) == 1
    shallow = two.ShallowParty("/k/shallow", "me")
    shallow.join()
    assert len(one.ShallowParty("/k/shallow")) == 1
    ready = PatientChildrenWatch(one, "/k/party", time_boundary=0.1).start()
    assert len(ready.get(timeout=PATIENCE_S)[0]) == 1


def election(one, two):
    """One leads at a time, and everybody who waits does in the end."""
    leaders, inside = [], []

    def lead(name):
        inside.append(name)
        assert len(inside) == 1, "one leader at a time"
        time.sleep(0.02)
        leaders.append(name)
        inside.pop()

    clients = [connect() for _ in range(3)]
    runs = [client.Election("/k/election", str(n)) for n, client in enumerate(clients)]
    in_threads(*(lambda run=run, n=n: run.run(lead, n) for n, run in enumerate(runs)))
    assert sorted(leaders) == [0, 1, 2]
    # A leader whose session ends makes way.
    elected = threading.Event()
    stays = threading.Event()

    def lead_until_dead():
        try:
            clients[0].Election("/k/master").run(stays.wait)
        except ConnectionClosedError:
            pass

    first = threading.Thread(target=lead_until_dead, daemon=True)
    first.start()
    eventually("the first leads", lambda: clients[0].Election("/k/master").contenders() != [])
    second = threading.Thread(target=lambda: clients[1].Election("/k/master").run(elected.set), daemon=True)
    second.start()
    assert not elected.wait(MOMENT_S)
    # The process "dies": its session is closed under its feet.
    clients[0].stop()
    assert elected.wait(PATIENCE_S)
    stays.set()
    for client in clients:
        client.stop()


def exclusive_lock(one, two):
    total, inside = [], []

    def work(client):
        lock = client.Lock("/k/lock", "worker")
        for _ in range(15):
            with lock:
                inside.append(1)
                assert len(inside) == 1, "one holder at a time"
                total.append(1)
                inside.pop()

    in_threads(lambda: work(one), lambda: work(two), lambda: work(one), lambda: work(two))
    assert len(total) == 60
    lock = one.Lock("/k/lock", "holder")
    lock.acquire()
    waiting = two.Lock("/k/lock", "waits")
    try:
        waiting.acquire(timeout=MOMENT_S)
        raise AssertionError("held twice")
    except LockTimeout:
        pass
    assert one.Lock("/k/lock").contenders() == ["holder"]
    assert not waiting.acquire(blocking=False)
    cancelled = queue.Queue()

    def wait_and_cancel():
        try:
            waiting.acquire()
        except CancelledError:
            cancelled.put(True)

    thread = threading.Thread(target=wait_and_cancel, daemon=True)
    thread.start()
    eventually("it waits", lambda: len(one.Lock("/k/lock").contenders()) == 2)
    waiting.cancel()
    assert cancelled.get(timeout=PATIENCE_S)
    lock.release()


def shared_lock(one, two):
    reader, other, writer = one.ReadLock("/k/shared"), two.ReadLock("/k/shared"), two.WriteLock("/k/shared")
    assert reader.acquire(timeout=PATIENCE_S) and other.acquire(timeout=PATIENCE_S)
    try:
        writer.acquire(timeout=MOMENT_S)
        raise AssertionError("a writer among readers")
    except LockTimeout:
        pass
    reader.release()
    other.release()
    assert writer.acquire(timeout=PATIENCE_S)
    try:
        one.ReadLock("/k/shared").acquire(timeout=MOMENT_S)
        raise AssertionError("a reader beside the writer")
    except LockTimeout:
        pass
    writer.release()
    semaphore, third = one.Semaphore("/k/semaphore", max_leases=2), two.Semaphore("/k/semaphore", max_leases=2)
    also = two.Semaphore("/k/semaphore", max_leases=2)
    assert semaphore.acquire() and third.acquire()
    assert not also.acquire(blocking=False)
    semaphore.release()
    assert also.acquire(timeout=PATIENCE_S)


def fifo_queue(one, two):
    into, out = one.Queue("/k/queue"), two.Queue("/k/queue")
    for n in range(30):
        into.put(b"%d" % n)
    assert [out.get() for _ in range(31)] == [b"%d" % n for n in range(30)] + [None]
    into.put(b"late", priority=200)
    into.put(b"soon", priority=1)
    assert [out.get(), out.get()] == [b"soon", b"late"]
    locking, consumer = one.LockingQueue("/k/locking"), two.LockingQueue("/k/locking")
    locking.put_all([b"a", b"b"])
    assert consumer.get(timeout=PATIENCE_S) == b"a"
    assert consumer.holds_lock() and consumer.consume()
    assert consumer.get(timeout=PATIENCE_S) == b"b" and consumer.consume()
    assert consumer.get(timeout=MOMENT_S) is None


def barrier(one, two):
    wall = one.Barrier("/k/barrier")
    wall.create()
    assert two.Barrier("/k/barrier").wait(MOMENT_S) is False
    passed = []
    waits = threading.Thread(target=lambda: passed.append(two.Barrier("/k/barrier").wait(PATIENCE_S)), daemon=True)
    waits.start()
    wall.remove()
    waits.join(PATIENCE_S)
    assert passed == [True]


def double_barrier(one, two):
    entered, left = [], []

    def member(client):
        double = client.DoubleBarrier("/k/double", 3)
        double.enter()
        entered.append(1)
        eventually("all have entered", lambda: len(entered) == 3)
        double.leave()
        left.append(1)

    third = connect()
    in_threads(lambda: member(one), lambda: member(two), lambda: member(third))
    assert len(left) == 3
    third.stop()


def counter(one, two):
    def count(client):
        mine = client.Counter("/k/counter")
        for _ in range(20):
            mine += 1

    in_threads(lambda: count(one), lambda: count(two))
    assert one.Counter("/k/counter").value == 40


def cache(one, two):
    from kazoo.recipe.cache import TreeCache

    one.create("/k/cache/a", b"1", makepath=True)
    tree = TreeCache(two, "/k/cache")
    tree.start()
    eventually("loaded", lambda: tree.get_data("/k/cache/a") is not None)
    one.create("/k/cache/b/c", b"2", makepath=True)
    one.set("/k/cache/a", b"3")
    eventually("followed", lambda: tree.get_data("/k/cache/b/c") and tree.get_data("/k/cache/a").data == b"3")
    one.delete("/k/cache/b", recursive=True)
    eventually("gone", lambda: tree.get_children("/k/cache") == frozenset(["a"]))
    tree.close()


def transactions_and_acls(one, two):
    acl = make_digest_acl("alice", "a", all=True)
    alice = connect(auth_data=[("digest", "alice:a")])
    alice.create("/k/secret", b"s", acl=[acl])
    assert alice.get("/k/secret")[0] == b"s"
    transaction = one.transaction()
    transaction.create("/k/t", b"1")
    transaction.set_data("/k/secret", b"no")
    results = transaction.commit()
    assert [type(result).__name__ for result in results] == ["RolledBackError", "NoAuthError"], results
    assert one.exists("/k/t") is None
    with one.transaction() as transaction:
        transaction.create("/k/t", b"1")
        transaction.check("/k/t", version=0)
    assert two.get("/k/t")[0] == b"1"
    alice.stop()


def load_balancing(one, two):
    """Servers register; clients go round those that are there; a server that leaves gets no more calls."""
    leaving = connect()
    for client, name in ((one, "a"), (two, "b"), (leaving, "c")):
        client.create(f"/k/servers/{name}", f"10.0.0.1:{ord(name)}".encode(), ephemeral=True, makepath=True)
    known = []
    two.ChildrenWatch("/k/servers", lambda names: known.__setitem__(slice(None), sorted(names)))
    calls = collections.Counter(known[n % len(known)] for n in range(30))
    assert calls == {"a": 10, "b": 10, "c": 10}
    leaving.stop()
    eventually("the leaving server is out", lambda: known == ["a", "b"])
    # SetPartitioner deals work out among those that are there, and again when somebody joins.
    shares = [
        client.SetPartitioner("/k/shares", set=range(6), time_boundary=0.2, identifier=name)
        for client, name in ((one, "one"), (two, "two"))
    ]

    def are_dealt_out():
        for share in shares:
            if share.release:
                share.release_set()
            elif share.allocating:
                share.wait_for_acquire(0.1)
        return all(share.acquired for share in shares) and sorted([*shares[0], *shares[1]]) == list(range(6))

    eventually("dealt out", are_dealt_out)
    for share in shares:
        share.finish()


def main():
    scenarios = [
        naming, configuration, membership, election, exclusive_lock, shared_lock, fifo_queue, barrier, double_barrier,
        counter, cache, transactions_and_acls, load_balancing,
    ]
    one, two = connect(), connect()
    for scenario in scenarios:
        scenario(one, two)
        print(f"ok {scenario.__name__}", flush=True)
    one.stop()
    two.stop()


if __name__ == "__main__":
    main()
