import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.api.transaction.CuratorTransactionResult;
import org.apache.curator.framework.recipes.atomic.AtomicValue;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicLong;
import org.apache.curator.framework.recipes.barriers.DistributedBarrier;
import org.apache.curator.framework.recipes.barriers.DistributedDoubleBarrier;
import org.apache.curator.framework.recipes.cache.CuratorCache;
import org.apache.curator.framework.recipes.cache.NodeCache;
import org.apache.curator.framework.recipes.cache.PathChildrenCache;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.leader.LeaderSelector;
import org.apache.curator.framework.recipes.leader.LeaderSelectorListenerAdapter;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.framework.recipes.locks.InterProcessReadWriteLock;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreV2;
import org.apache.curator.framework.recipes.locks.Lease;
import org.apache.curator.framework.recipes.nodes.GroupMember;
import org.apache.curator.framework.recipes.nodes.PersistentNode;
import org.apache.curator.framework.recipes.nodes.PersistentTtlNode;
import org.apache.curator.framework.recipes.queue.DistributedQueue;
import org.apache.curator.framework.recipes.queue.QueueBuilder;
import org.apache.curator.framework.recipes.queue.QueueConsumer;
import org.apache.curator.framework.recipes.queue.QueueSerializer;
import org.apache.curator.framework.recipes.queue.SimpleDistributedQueue;
import org.apache.curator.framework.recipes.shared.SharedCount;
import org.apache.curator.framework.recipes.watch.PersistentWatcher;
import org.apache.curator.framework.state.ConnectionState;
import org.apache.curator.retry.ExponentialBackoffRetry;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.ZooDefs;
import org.apache.zookeeper.data.Stat;

/** What people build on ZooKeeper, with Curator's recipes, each from two clients. Usage: Scenarios [name...] HOST:PORT */
public final class Scenarios {
    private static final int SESSION_MS = 20_000;
    private static final int PATIENCE_S = 30;

    interface Scenario {
        void run() throws Exception;
    }

    private static String server;
    private static CuratorFramework one;
    private static CuratorFramework two;
    private static final ExecutorService threads = Executors.newCachedThreadPool(task -> {
        Thread thread = new Thread(task);
        thread.setDaemon(true);
        return thread;
    });

    public static void main(String[] arguments) throws Exception {
        server = arguments[arguments.length - 1];
        List<String> wanted = Arrays.asList(arguments).subList(0, arguments.length - 1);
        one = open();
        two = open();
        Map<String, Scenario> scenarios = new LinkedHashMap<>();
        scenarios.put("naming service with sequential nodes", Scenarios::naming);
        scenarios.put("configuration push with watches", Scenarios::configuration);
        scenarios.put("cluster membership with ephemerals", Scenarios::membership);
        scenarios.put("master election, LeaderLatch", Scenarios::leaderLatch);
        scenarios.put("master election, LeaderSelector", Scenarios::leaderSelector);
        scenarios.put("exclusive lock", Scenarios::exclusiveLock);
        scenarios.put("lock of a lost client", Scenarios::lostLock);
        scenarios.put("shared lock", Scenarios::sharedLock);
        scenarios.put("semaphore", Scenarios::semaphore);
        scenarios.put("FIFO queue, SimpleDistributedQueue", Scenarios::simpleQueue);
        scenarios.put("FIFO queue, DistributedQueue", Scenarios::queue);
        scenarios.put("barrier", Scenarios::barrier);
        scenarios.put("double barrier", Scenarios::doubleBarrier);
        scenarios.put("counters", Scenarios::counters);
        scenarios.put("caches", Scenarios::caches);
        scenarios.put("persistent nodes", Scenarios::persistentNodes);
        scenarios.put("transactions", Scenarios::transactions);
        scenarios.put("all kinds of znodes and ACLs", Scenarios::kinds);
        scenarios.put("load balancing over registered servers", Scenarios::loadBalancing);
        scenarios.keySet().removeIf(name -> !wanted.isEmpty() && !wanted.contains(name));
        for (Map.Entry<String, Scenario> scenario : scenarios.entrySet()) {
            long start = System.nanoTime();
            Future<?> running = threads.submit(() -> {
                scenario.getValue().run();
                return null;
            });
            try {
                running.get(2 * PATIENCE_S, TimeUnit.SECONDS);
            } catch (Exception failure) {
                System.err.println("FAILED " + scenario.getKey());
                failure.printStackTrace();
                System.exit(1);
            }
            System.out.printf("ok %s, %d ms%n", scenario.getKey(), (System.nanoTime() - start) / 1_000_000);
        }
        one.close();
        two.close();
        System.exit(0);
    }

    private static CuratorFramework open() throws Exception {
        CuratorFramework client = CuratorFrameworkFactory.builder()
            .connectString(server)
            .sessionTimeoutMs(SESSION_MS)
            .connectionTimeoutMs(PATIENCE_S * 1000)
            .retryPolicy(new ExponentialBackoffRetry(100, 3))
            .build();
        client.start();
        check(client.blockUntilConnected(PATIENCE_S, TimeUnit.SECONDS), "connected");
        return client;
    }

    private static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError("does not hold: " + what);
        }
    }

    private static void equal(Object expected, Object seen) {
        if (!expected.equals(seen)) {
            throw new AssertionError("expected " + expected + ", saw " + seen);
        }
    }

    private static void eventually(String what, Callable<Boolean> holds) throws Exception {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(PATIENCE_S);
        while (!holds.call()) {
            check(System.nanoTime() < deadline, what);
            Thread.sleep(20);
        }
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static String text(byte[] bytes) {
        return new String(bytes, StandardCharsets.UTF_8);
    }

    /** Every name is given once, whoever asks. */
    private static void naming() throws Exception {
        int each = 50;
        Set<String> names = Collections.synchronizedSet(new HashSet<>());
        List<Future<?>> running = new ArrayList<>();
        one.create().forPath("/naming");
        for (CuratorFramework client : Arrays.asList(one, two)) {
            running.add(threads.submit(() -> {
                String last = "";
                for (int i = 0; i < each; i++) {
                    String name = client.create().withMode(CreateMode.PERSISTENT_SEQUENTIAL).forPath("/naming/id-");
                    check(name.compareTo(last) > 0, "names of one client rise");
                    last = name;
                    names.add(name);
                }
                return null;
            }));
        }
        for (Future<?> each1 : running) {
            each1.get();
        }
        equal(2 * each, names.size());
        check(names.contains(String.format("/naming/id-%010d", 2 * each - 1)), "no name was left out");
    }

    private static void configuration() throws Exception {
        one.create().creatingParentsIfNeeded().forPath("/configuration/db", bytes("v0"));
        BlockingQueue<String> pushed = new ArrayBlockingQueue<>(100);
        try (NodeCache cache = new NodeCache(two, "/configuration/db")) {
            cache.getListenable().addListener(() -> pushed.add(text(cache.getCurrentData().getData())));
            cache.start(true);
            for (int i = 1; i <= 5; i++) {
                one.setData().forPath("/configuration/db", bytes("v" + i));
                equal("v" + i, pushed.poll(PATIENCE_S, TimeUnit.SECONDS));
            }
        }
        BlockingQueue<String> heard = new ArrayBlockingQueue<>(100);
        Watcher watcher = event -> heard.add(event.getType() + " " + event.getPath());
        two.getData().usingWatcher(watcher).forPath("/configuration/db");
        one.setData().forPath("/configuration/db", bytes("last"));
        one.setData().forPath("/configuration/db", bytes("really"));
        equal("NodeDataChanged /configuration/db", heard.poll(PATIENCE_S, TimeUnit.SECONDS));
        try (PersistentWatcher recursive = new PersistentWatcher(two, "/configuration", true)) {
            CountDownLatch isSet = new CountDownLatch(1);
            BlockingQueue<String> all = new ArrayBlockingQueue<>(100);
            recursive.getListenable().addListener(event -> all.add(event.getType() + " " + event.getPath()));
            recursive.getResetListenable().addListener(isSet::countDown);
            recursive.start();
            check(isSet.await(PATIENCE_S, TimeUnit.SECONDS), "persistent watch is set");
            one.create().forPath("/configuration/new");
            one.setData().forPath("/configuration/new", bytes("x"));
            one.delete().forPath("/configuration/new");
            for (String kind : Arrays.asList("NodeCreated", "NodeDataChanged", "NodeDeleted")) {
                equal(kind + " /configuration/new", all.poll(PATIENCE_S, TimeUnit.SECONDS));
            }
        }
    }

    private static void membership() throws Exception {
        CuratorFramework third = open();
        GroupMember first = new GroupMember(one, "/members", "first", bytes("1"));
        GroupMember second = new GroupMember(two, "/members", "second", bytes("2"));
        GroupMember leaving = new GroupMember(third, "/members", "third", bytes("3"));
        first.start();
        second.start();
        leaving.start();
        Set<String> all = new HashSet<>(Arrays.asList("first", "second", "third"));
        eventually("all are members", () -> first.getCurrentMembers().keySet().equals(all));
        third.close();
        all.remove("third");
        eventually("one has left", () -> second.getCurrentMembers().keySet().equals(all));
        first.close();
        second.close();
        eventually("all have left", () -> one.getChildren().forPath("/members").isEmpty());
    }

    private static void leaderLatch() throws Exception {
        LeaderLatch first = new LeaderLatch(one, "/latch", "first");
        LeaderLatch second = new LeaderLatch(two, "/latch", "second");
        first.start();
        check(first.await(PATIENCE_S, TimeUnit.SECONDS), "the first leads");
        second.start();
        eventually("both take part", () -> first.getParticipants().size() == 2);
        check(!second.hasLeadership(), "one leader at a time");
        equal("first", second.getLeader().getId());
        first.close();
        check(second.await(PATIENCE_S, TimeUnit.SECONDS), "the second follows");
        second.close();
    }

    private static void leaderSelector() throws Exception {
        AtomicInteger leaders = new AtomicInteger();
        CountDownLatch turns = new CountDownLatch(6);
        List<LeaderSelector> selectors = new ArrayList<>();
        for (CuratorFramework client : Arrays.asList(one, two, one)) {
            LeaderSelector selector = new LeaderSelector(client, "/selector", new LeaderSelectorListenerAdapter() {
                @Override
                public void takeLeadership(CuratorFramework unused) throws Exception {
                    check(leaders.incrementAndGet() == 1, "one leader at a time");
                    Thread.sleep(5);
                    leaders.decrementAndGet();
                    turns.countDown();
                }
            });
            selector.autoRequeue();
            selector.start();
            selectors.add(selector);
        }
        check(turns.await(PATIENCE_S, TimeUnit.SECONDS), "everybody has led");
        selectors.forEach(LeaderSelector::close);
    }

    private static void exclusiveLock() throws Exception {
        int clients = 4;
        int rounds = 10;
        AtomicInteger inside = new AtomicInteger();
        int[] sum = {0};
        List<Future<?>> running = new ArrayList<>();
        for (int i = 0; i < clients; i++) {
            InterProcessMutex mutex = new InterProcessMutex(i % 2 == 0 ? one : two, "/lock");
            running.add(threads.submit(() -> {
                for (int round = 0; round < rounds; round++) {
                    check(mutex.acquire(PATIENCE_S, TimeUnit.SECONDS), "lock is given");
                    check(inside.incrementAndGet() == 1, "one holder at a time");
                    sum[0]++;
                    inside.decrementAndGet();
                    mutex.release();
                }
                return null;
            }));
        }
        for (Future<?> each : running) {
            each.get();
        }
        equal(clients * rounds, sum[0]);
        InterProcessMutex reentrant = new InterProcessMutex(one, "/lock");
        reentrant.acquire();
        reentrant.acquire();
        check(!new InterProcessMutex(two, "/lock").acquire(200, TimeUnit.MILLISECONDS), "still held");
        reentrant.release();
        reentrant.release();
    }

    private static void lostLock() throws Exception {
        CuratorFramework dying = open();
        CountDownLatch isLost = new CountDownLatch(1);
        dying.getConnectionStateListenable().addListener((client, state) -> {
            if (state == ConnectionState.LOST) {
                isLost.countDown();
            }
        });
        new InterProcessMutex(dying, "/lost").acquire();
        InterProcessMutex next = new InterProcessMutex(two, "/lost");
        check(!next.acquire(200, TimeUnit.MILLISECONDS), "held by the other");
        long session = dying.getZookeeperClient().getZooKeeper().getSessionId();
        byte[] password = dying.getZookeeperClient().getZooKeeper().getSessionPasswd();
        // Another connection takes over the session and closes it: for its owner, the session has expired. The owner
        // may be quicker to come back than the other to close.
        while (!one.getChildren().forPath("/lost").isEmpty()) {
            CountDownLatch isAnswered = new CountDownLatch(1);
            org.apache.zookeeper.ZooKeeper thief =
                new org.apache.zookeeper.ZooKeeper(server, SESSION_MS, event -> isAnswered.countDown(), session, password);
            check(isAnswered.await(PATIENCE_S, TimeUnit.SECONDS), "session is taken over");
            thief.close();
        }
        check(isLost.await(PATIENCE_S, TimeUnit.SECONDS), "the owner learns of it");
        check(next.acquire(PATIENCE_S, TimeUnit.SECONDS), "the lock is free");
        next.release();
        dying.close();
    }

    private static void sharedLock() throws Exception {
        InterProcessReadWriteLock first = new InterProcessReadWriteLock(one, "/shared");
        InterProcessReadWriteLock second = new InterProcessReadWriteLock(two, "/shared");
        first.readLock().acquire();
        check(second.readLock().acquire(PATIENCE_S, TimeUnit.SECONDS), "readers share");
        InterProcessReadWriteLock third = new InterProcessReadWriteLock(two, "/shared");
        Future<Boolean> writer = threads.submit(() -> {
            check(!third.writeLock().acquire(200, TimeUnit.MILLISECONDS), "readers keep the writer out");
            boolean got = third.writeLock().acquire(PATIENCE_S, TimeUnit.SECONDS);
            third.writeLock().release();
            return got;
        });
        Thread.sleep(400);
        first.readLock().release();
        second.readLock().release();
        check(writer.get(), "the writer comes in");
        first.writeLock().acquire();
        check(first.readLock().acquire(PATIENCE_S, TimeUnit.SECONDS), "a writer may read");
        check(!second.readLock().acquire(200, TimeUnit.MILLISECONDS), "a writer keeps readers out");
        first.readLock().release();
        first.writeLock().release();
    }

    private static void semaphore() throws Exception {
        InterProcessSemaphoreV2 first = new InterProcessSemaphoreV2(one, "/semaphore", 2);
        InterProcessSemaphoreV2 second = new InterProcessSemaphoreV2(two, "/semaphore", 2);
        Lease lease = first.acquire();
        Lease other = second.acquire();
        check(first.acquire(200, TimeUnit.MILLISECONDS) == null, "two leases, not three");
        second.returnLease(other);
        Lease third = first.acquire(PATIENCE_S, TimeUnit.SECONDS);
        check(third != null, "a lease came back");
        first.returnLease(third);
        first.returnLease(lease);
    }

    private static void simpleQueue() throws Exception {
        SimpleDistributedQueue in = new SimpleDistributedQueue(one, "/simple-queue");
        SimpleDistributedQueue out = new SimpleDistributedQueue(two, "/simple-queue");
        Future<byte[]> waiting = threads.submit(out::take);
        in.offer(bytes("0"));
        equal("0", text(waiting.get()));
        for (int i = 1; i <= 20; i++) {
            in.offer(bytes("" + i));
        }
        for (int i = 1; i <= 20; i++) {
            equal("" + i, text(out.poll(PATIENCE_S, TimeUnit.SECONDS)));
        }
        check(out.poll() == null, "empty");
    }

    private static void queue() throws Exception {
        BlockingQueue<String> taken = new ArrayBlockingQueue<>(100);
        QueueSerializer<String> serializer = new QueueSerializer<String>() {
            @Override
            public byte[] serialize(String item) {
                return bytes(item);
            }

            @Override
            public String deserialize(byte[] data) {
                return text(data);
            }
        };
        QueueConsumer<String> consumer = new QueueConsumer<String>() {
            @Override
            public void consumeMessage(String message) {
                taken.add(message);
            }

            @Override
            public void stateChanged(CuratorFramework client, ConnectionState state) {}
        };
        DistributedQueue<String> out = QueueBuilder.builder(two, consumer, serializer, "/queue").buildQueue();
        DistributedQueue<String> in = QueueBuilder.builder(one, null, serializer, "/queue").buildQueue();
        out.start();
        in.start();
        for (int i = 0; i < 20; i++) {
            in.put("item " + i);
            in.flushPuts(PATIENCE_S, TimeUnit.SECONDS);
        }
        for (int i = 0; i < 20; i++) {
            equal("item " + i, taken.poll(PATIENCE_S, TimeUnit.SECONDS));
        }
        in.close();
        out.close();
    }

    private static void barrier() throws Exception {
        DistributedBarrier barrier = new DistributedBarrier(one, "/barrier");
        barrier.setBarrier();
        CountDownLatch passed = new CountDownLatch(2);
        for (CuratorFramework client : Arrays.asList(one, two)) {
            threads.submit(() -> {
                new DistributedBarrier(client, "/barrier").waitOnBarrier();
                passed.countDown();
                return null;
            });
        }
        check(!passed.await(300, TimeUnit.MILLISECONDS), "nobody passes");
        barrier.removeBarrier();
        check(passed.await(PATIENCE_S, TimeUnit.SECONDS), "all pass");
    }

    private static void doubleBarrier() throws Exception {
        int members = 3;
        AtomicInteger inside = new AtomicInteger();
        AtomicInteger left = new AtomicInteger();
        List<Future<?>> running = new ArrayList<>();
        for (int i = 0; i < members; i++) {
            DistributedDoubleBarrier barrier = new DistributedDoubleBarrier(i == 0 ? one : two, "/double", members);
            running.add(threads.submit(() -> {
                inside.incrementAndGet();
                check(barrier.enter(PATIENCE_S, TimeUnit.SECONDS), "entered");
                equal(members, inside.get());
                left.incrementAndGet();
                check(barrier.leave(PATIENCE_S, TimeUnit.SECONDS), "left");
                equal(members, left.get());
                return null;
            }));
        }
        for (Future<?> each : running) {
            each.get();
        }
    }

    private static void counters() throws Exception {
        List<Future<?>> running = new ArrayList<>();
        for (CuratorFramework client : Arrays.asList(one, two)) {
            running.add(threads.submit(() -> {
                DistributedAtomicLong counter =
                    new DistributedAtomicLong(client, "/counter", new ExponentialBackoffRetry(5, 20));
                for (int i = 0; i < 30; i++) {
                    AtomicValue<Long> value = counter.increment();
                    check(value.succeeded(), "incremented");
                }
                return null;
            }));
        }
        for (Future<?> each : running) {
            each.get();
        }
        equal(60L, new DistributedAtomicLong(one, "/counter", new ExponentialBackoffRetry(5, 9)).get().postValue());
        try (SharedCount first = new SharedCount(one, "/count", 7); SharedCount second = new SharedCount(two, "/count", 7)) {
            first.start();
            second.start();
            first.setCount(11);
            eventually("the count is shared", () -> second.getCount() == 11);
            check(second.trySetCount(second.getVersionedValue(), 12), "set at its version");
        }
    }

    private static void caches() throws Exception {
        one.create().creatingParentsIfNeeded().forPath("/cache/a", bytes("1"));
        try (CuratorCache tree = CuratorCache.build(two, "/cache"); PathChildrenCache children = new PathChildrenCache(two, "/cache", true)) {
            tree.start();
            children.start(PathChildrenCache.StartMode.BUILD_INITIAL_CACHE);
            equal(1, children.getCurrentData().size());
            one.create().creatingParentsIfNeeded().forPath("/cache/b/c", bytes("2"));
            one.setData().forPath("/cache/a", bytes("3"));
            eventually("tree cache", () -> tree.get("/cache/b/c").isPresent() && tree.get("/cache/a").isPresent()
                && text(tree.get("/cache/a").get().getData()).equals("3"));
            eventually("children cache", () -> children.getCurrentData().size() == 2
                && text(children.getCurrentData("/cache/a").getData()).equals("3"));
            one.delete().deletingChildrenIfNeeded().forPath("/cache/b");
            eventually("gone from both", () -> !tree.get("/cache/b").isPresent() && children.getCurrentData().size() == 1);
        }
    }

    private static void persistentNodes() throws Exception {
        one.create().forPath("/persistent");
        PersistentNode node = new PersistentNode(one, CreateMode.EPHEMERAL, false, "/persistent/node", bytes("x"));
        node.start();
        check(node.waitForInitialCreate(PATIENCE_S, TimeUnit.SECONDS), "created");
        two.delete().forPath("/persistent/node");
        eventually("it comes back", () -> two.checkExists().forPath("/persistent/node") != null);
        node.close();
        eventually("it goes", () -> two.checkExists().forPath("/persistent/node") == null);
        try (PersistentTtlNode ttl = new PersistentTtlNode(one, "/persistent/ttl", 60_000, bytes("x"))) {
            ttl.start();
            check(ttl.waitForInitialCreate(PATIENCE_S, TimeUnit.SECONDS), "created");
        }
    }

    private static void transactions() throws Exception {
        List<CuratorTransactionResult> results = one.transaction().forOperations(
            one.transactionOp().create().forPath("/transaction", bytes("0")),
            one.transactionOp().create().withMode(CreateMode.EPHEMERAL).forPath("/transaction/e"),
            one.transactionOp().setData().withVersion(0).forPath("/transaction", bytes("1")),
            one.transactionOp().check().withVersion(1).forPath("/transaction"),
            one.transactionOp().delete().forPath("/transaction/e"));
        equal(5, results.size());
        equal(1, results.get(2).getResultStat().getVersion());
        try {
            one.transaction().forOperations(
                one.transactionOp().setData().forPath("/transaction", bytes("no")),
                one.transactionOp().check().withVersion(99).forPath("/transaction"));
            check(false, "a failed check fails all");
        } catch (KeeperException.BadVersionException expected) {
            equal("1", text(two.getData().forPath("/transaction")));
        }
    }

    private static void kinds() throws Exception {
        for (CreateMode mode : CreateMode.values()) {
            CuratorFramework client = one;
            String path = mode.isTTL()
                ? client.create().withTtl(60_000).creatingParentContainersIfNeeded().withMode(mode).forPath("/kinds/" + mode + "-")
                : client.create().creatingParentContainersIfNeeded().withMode(mode).forPath("/kinds/" + mode + "-");
            Stat stat = two.checkExists().forPath(path);
            equal(mode.isEphemeral(), stat.getEphemeralOwner() != 0);
            equal(mode.isSequential(), path.matches(".*-\\d{10}"));
        }
        CuratorFramework alice = CuratorFrameworkFactory.builder().connectString(server)
            .authorization("digest", bytes("alice:a")).retryPolicy(new ExponentialBackoffRetry(100, 3)).build();
        alice.start();
        alice.create().withACL(ZooDefs.Ids.CREATOR_ALL_ACL).forPath("/kinds/secret", bytes("s"));
        equal("s", text(alice.getData().forPath("/kinds/secret")));
        try {
            one.getData().forPath("/kinds/secret");
            check(false, "nobody else reads it");
        } catch (KeeperException.NoAuthException expected) {
            alice.setACL().withACL(ZooDefs.Ids.READ_ACL_UNSAFE).forPath("/kinds/secret");
            equal("s", text(one.getData().forPath("/kinds/secret")));
        }
        alice.close();
    }

    /** Servers register; clients go round those that are there; a server that leaves gets no more calls. */
    private static void loadBalancing() throws Exception {
        CuratorFramework leaving = open();
        one.create().creatingParentsIfNeeded().withMode(CreateMode.EPHEMERAL).forPath("/servers/a", bytes("10.0.0.1:80"));
        one.create().withMode(CreateMode.EPHEMERAL).forPath("/servers/b", bytes("10.0.0.2:80"));
        leaving.create().withMode(CreateMode.EPHEMERAL).forPath("/servers/c", bytes("10.0.0.3:80"));
        try (PathChildrenCache servers = new PathChildrenCache(two, "/servers", true)) {
            servers.start(PathChildrenCache.StartMode.BUILD_INITIAL_CACHE);
            Map<String, Integer> calls = new LinkedHashMap<>();
            for (int call = 0; call < 30; call++) {
                String chosen = text(servers.getCurrentData().get(call % servers.getCurrentData().size()).getData());
                calls.merge(chosen, 1, Integer::sum);
            }
            equal(3, calls.size());
            calls.values().forEach(count -> equal(10, count));
            leaving.close();
            eventually("the leaving server is out", () -> servers.getCurrentData().size() == 2);
            servers.getCurrentData().forEach(child -> check(!child.getPath().endsWith("/c"), "not c"));
        }
    }
}
