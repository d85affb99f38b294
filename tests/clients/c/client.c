/* Debian's C client (libzookeeper_mt) against a server: every call, well and badly used. Exits at the first
 * expectation that does not hold, with its line. Usage: client HOST:PORT */

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zookeeper/zookeeper.h>

#define OPEN (&ZOO_OPEN_ACL_UNSAFE)
#define TIMEOUT_MS 20000
#define PATIENCE_S 20
#define EVENTS_MAX 64
#define BURST 500

#define EXPECT(expected, call)                                                                                \
    do {                                                                                                      \
        int rc_ = (call);                                                                                     \
        if (rc_ != (expected)) {                                                                              \
            fprintf(stderr, "%s:%d: %s: %d (%s), expected %d\n", __FILE__, __LINE__, #call, rc_, zerror(rc_), \
                    (expected));                                                                              \
            exit(1);                                                                                          \
        }                                                                                                     \
    } while (0)
#define HOLDS(condition)                                                                       \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);     \
            exit(1);                                                                           \
        }                                                                                      \
    } while (0)

/* What watchers of one handle have heard. */
struct heard {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int is_connected;
    int connects;
    int count;
    char events[EVENTS_MAX][128];
};

static const char *host;

static void heard_init(struct heard *h) {
    memset(h, 0, sizeof *h);
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->changed, NULL);
}

static void on_event(zhandle_t *zh, int type, int state, const char *path, void *context) {
    struct heard *h = context;
    (void)zh;
    pthread_mutex_lock(&h->lock);
    if (type == ZOO_SESSION_EVENT) {
        h->is_connected = state == ZOO_CONNECTED_STATE;
        h->connects += h->is_connected;
    } else if (h->count < EVENTS_MAX) {
        snprintf(h->events[h->count++], sizeof h->events[0], "%d %s", type, path ? path : "");
    }
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
}

static void wait_until(struct heard *h, int connects, int events, int line) {
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += PATIENCE_S;
    pthread_mutex_lock(&h->lock);
    while (!h->is_connected || h->connects < connects || h->count < events) {
        if (pthread_cond_timedwait(&h->changed, &h->lock, &deadline) == ETIMEDOUT) {
            fprintf(stderr, "%s:%d: waited for %d connects and %d events, got %d and %d\n", __FILE__, line, connects,
                    events, h->connects, h->count);
            exit(1);
        }
    }
    pthread_mutex_unlock(&h->lock);
}
#define WAIT_CONNECTS(h, n) wait_until(h, n, 0, __LINE__)
#define WAIT_EVENTS(h, n) wait_until(h, 1, n, __LINE__)

/* Forgets the events, of which the last must be this one. */
static void take_event(struct heard *h, int type, const char *path, int line) {
    char expected[128];
    snprintf(expected, sizeof expected, "%d %s", type, path);
    wait_until(h, 1, 1, line);
    pthread_mutex_lock(&h->lock);
    if (h->count != 1 || strcmp(h->events[0], expected) != 0) {
        fprintf(stderr, "%s:%d: %d events, first %s, expected %s\n", __FILE__, line, h->count, h->events[0], expected);
        exit(1);
    }
    h->count = 0;
    pthread_mutex_unlock(&h->lock);
}
#define TAKE_EVENT(h, type, path) take_event(h, type, path, __LINE__)

static zhandle_t *open_handle(struct heard *h, const clientid_t *id) {
    heard_init(h);
    zhandle_t *zh = zookeeper_init(host, on_event, TIMEOUT_MS, id, h, 0);
    HOLDS(zh != NULL);
    WAIT_CONNECTS(h, 1);
    return zh;
}

static void test_create(zhandle_t *zh) {
    char path[128];
    struct Stat stat;
    EXPECT(ZOK, zoo_create(zh, "/c", "data", 4, OPEN, 0, path, sizeof path));
    HOLDS(strcmp(path, "/c") == 0);
    EXPECT(ZNODEEXISTS, zoo_create(zh, "/c", "data", 4, OPEN, 0, NULL, 0));
    EXPECT(ZNONODE, zoo_create(zh, "/nothing/c", "data", 4, OPEN, 0, NULL, 0));
    EXPECT(ZBADARGUMENTS, zoo_create(zh, "/c/", "data", 4, OPEN, 0, NULL, 0));
    struct ACL_vector none = {0, NULL};
    EXPECT(ZINVALIDACL, zoo_create(zh, "/c/x", "data", 4, &none, 0, NULL, 0));
    EXPECT(ZOK, zoo_create(zh, "/c/s-", "1", 1, OPEN, ZOO_SEQUENCE, path, sizeof path));
    HOLDS(strcmp(path, "/c/s-0000000000") == 0);
    EXPECT(ZOK, zoo_create(zh, "/c/e", "1", 1, OPEN, ZOO_EPHEMERAL, path, sizeof path));
    EXPECT(ZNOCHILDRENFOREPHEMERALS, zoo_create(zh, "/c/e/x", "1", 1, OPEN, 0, path, sizeof path));
    EXPECT(ZOK, zoo_create2(zh, "/c/two", "22", 2, OPEN, 0, path, sizeof path, &stat));
    HOLDS(stat.dataLength == 2 && stat.version == 0 && stat.ephemeralOwner == 0 && stat.czxid == stat.pzxid);
    EXPECT(ZOK, zoo_create2(zh, "/c/es-", NULL, -1, OPEN, ZOO_EPHEMERAL_SEQUENTIAL, path, sizeof path, &stat));
    HOLDS(strcmp(path, "/c/es-0000000003") == 0 && stat.dataLength == 0);
    HOLDS(stat.ephemeralOwner == zoo_client_id(zh)->client_id);
    EXPECT(ZOK, zoo_create2(zh, "/c/box", NULL, -1, OPEN, ZOO_CONTAINER, path, sizeof path, &stat));
    HOLDS(stat.ephemeralOwner == 0);
    EXPECT(ZOK, zoo_create_ttl(zh, "/c/ttl", "x", 1, OPEN, ZOO_PERSISTENT_WITH_TTL, 100000, path, sizeof path));
    EXPECT(ZOK, zoo_create2_ttl(zh, "/c/ttl-", "x", 1, OPEN, ZOO_PERSISTENT_SEQUENTIAL_WITH_TTL, 100000, path,
                                sizeof path, &stat));
    HOLDS(strcmp(path, "/c/ttl-0000000006") == 0 && stat.ephemeralOwner == 0);
    EXPECT(ZOK, zoo_exists(zh, "/c", 0, &stat));
    HOLDS(stat.numChildren == 7 && stat.cversion == 7);
    puts("ok create");
}

static void test_data(zhandle_t *zh) {
    char buffer[64];
    int len = sizeof buffer;
    struct Stat stat;
    EXPECT(ZOK, zoo_get(zh, "/c", 0, buffer, &len, &stat));
    HOLDS(len == 4 && memcmp(buffer, "data", 4) == 0 && stat.version == 0);
    len = sizeof buffer;
    EXPECT(ZOK, zoo_get(zh, "/c/box", 0, buffer, &len, &stat));
    HOLDS(len == -1);
    EXPECT(ZNONODE, zoo_get(zh, "/nothing", 0, buffer, &len, &stat));
    EXPECT(ZOK, zoo_set(zh, "/c", "newer", 5, -1));
    EXPECT(ZBADVERSION, zoo_set(zh, "/c", "x", 1, 7));
    EXPECT(ZOK, zoo_set2(zh, "/c", "", 0, 1, &stat));
    HOLDS(stat.version == 2 && stat.dataLength == 0 && stat.mzxid > stat.czxid);
    EXPECT(ZNONODE, zoo_set(zh, "/nothing", "x", 1, -1));
    static char big[600000], back[600000];
    memset(big, 'b', sizeof big);
    EXPECT(ZOK, zoo_set(zh, "/c", big, sizeof big, -1));
    len = sizeof back;
    EXPECT(ZOK, zoo_get(zh, "/c", 0, back, &len, &stat));
    HOLDS(len == (int)sizeof big && memcmp(big, back, sizeof big) == 0);
    len = sizeof buffer;
    EXPECT(ZOK, zoo_getconfig(zh, 0, buffer, &len, &stat));
    EXPECT(ZRECONFIGDISABLED, zoo_reconfig(zh, NULL, "1", NULL, -1, buffer, &len, &stat));
    puts("ok data");
}

static void test_children(zhandle_t *zh) {
    struct String_vector names;
    struct Stat stat;
    EXPECT(ZOK, zoo_get_children(zh, "/c", 0, &names));
    HOLDS(names.count == 7);
    deallocate_String_vector(&names);
    EXPECT(ZOK, zoo_get_children2(zh, "/c", 0, &names, &stat));
    HOLDS(names.count == stat.numChildren);
    deallocate_String_vector(&names);
    EXPECT(ZNONODE, zoo_get_children(zh, "/nothing", 0, &names));
    EXPECT(ZNOTEMPTY, zoo_delete(zh, "/c", -1));
    EXPECT(ZNONODE, zoo_delete(zh, "/nothing", -1));
    EXPECT(ZBADVERSION, zoo_delete(zh, "/c/two", 5));
    EXPECT(ZOK, zoo_delete(zh, "/c/two", 0));
    EXPECT(ZNONODE, zoo_exists(zh, "/c/two", 0, &stat));
    puts("ok children");
}

static void test_watches(zhandle_t *zh) {
    struct heard h;
    struct Stat stat;
    struct String_vector names;
    char buffer[8];
    int len = sizeof buffer;
    heard_init(&h);
    h.is_connected = h.connects = 1;
    EXPECT(ZNONODE, zoo_wexists(zh, "/w", on_event, &h, &stat));
    EXPECT(ZOK, zoo_create(zh, "/w", "", 0, OPEN, 0, NULL, 0));
    TAKE_EVENT(&h, ZOO_CREATED_EVENT, "/w");
    EXPECT(ZOK, zoo_wexists(zh, "/w", on_event, &h, &stat));
    EXPECT(ZOK, zoo_set(zh, "/w", "1", 1, -1));
    TAKE_EVENT(&h, ZOO_CHANGED_EVENT, "/w");
    EXPECT(ZOK, zoo_wget(zh, "/w", on_event, &h, buffer, &len, &stat));
    EXPECT(ZOK, zoo_set(zh, "/w", "2", 1, -1));
    TAKE_EVENT(&h, ZOO_CHANGED_EVENT, "/w");
    EXPECT(ZOK, zoo_wget_children(zh, "/w", on_event, &h, &names));
    EXPECT(ZOK, zoo_create(zh, "/w/a", "", 0, OPEN, 0, NULL, 0));
    TAKE_EVENT(&h, ZOO_CHILD_EVENT, "/w");
    EXPECT(ZOK, zoo_wget_children2(zh, "/w", on_event, &h, &names, &stat));
    deallocate_String_vector(&names);
    EXPECT(ZOK, zoo_delete(zh, "/w/a", -1));
    TAKE_EVENT(&h, ZOO_CHILD_EVENT, "/w");
    EXPECT(ZOK, zoo_wget(zh, "/w", on_event, &h, buffer, &len, &stat));
    EXPECT(ZOK, zoo_wget_children(zh, "/w", on_event, &h, &names));
    EXPECT(ZOK, zoo_delete(zh, "/w", -1));
    TAKE_EVENT(&h, ZOO_DELETED_EVENT, "/w");
    /* Removed watches say nothing. */
    EXPECT(ZNONODE, zoo_wexists(zh, "/w", on_event, &h, &stat));
    EXPECT(ZOK, zoo_remove_watches(zh, "/w", ZWATCHTYPE_DATA, on_event, &h, 0));
    EXPECT(ZNOWATCHER, zoo_remove_watches(zh, "/w", ZWATCHTYPE_DATA, on_event, &h, 0));
    EXPECT(ZOK, zoo_create(zh, "/w", "", 0, OPEN, 0, NULL, 0));
    EXPECT(ZNONODE, zoo_wexists(zh, "/w2", on_event, &h, &stat));
    EXPECT(ZOK, zoo_remove_all_watches(zh, "/w2", ZWATCHTYPE_ANY, 0));
    puts("ok watches");
}

static void test_acl(zhandle_t *zh) {
    struct ACL_vector acl;
    struct Stat stat;
    struct heard h;
    EXPECT(ZOK, zoo_get_acl(zh, "/c", &acl, &stat));
    HOLDS(acl.count == 1 && acl.data[0].perms == ZOO_PERM_ALL && strcmp(acl.data[0].id.scheme, "world") == 0);
    deallocate_ACL_vector(&acl);
    EXPECT(ZINVALIDACL, zoo_create(zh, "/acl", "", 0, &ZOO_CREATOR_ALL_ACL, 0, NULL, 0));
    zhandle_t *alice = open_handle(&h, NULL);
    EXPECT(ZOK, zoo_add_auth(alice, "digest", "alice:a", 7, NULL, NULL));
    EXPECT(ZOK, zoo_create(alice, "/acl", "mine", 4, &ZOO_CREATOR_ALL_ACL, 0, NULL, 0));
    char buffer[8];
    int len = sizeof buffer;
    EXPECT(ZNOAUTH, zoo_get(zh, "/acl", 0, buffer, &len, &stat));
    EXPECT(ZNOAUTH, zoo_set(zh, "/acl", "x", 1, -1));
    EXPECT(ZOK, zoo_get(alice, "/acl", 0, buffer, &len, &stat));
    EXPECT(ZOK, zoo_get_acl(alice, "/acl", &acl, &stat));
    HOLDS(acl.count == 1 && strcmp(acl.data[0].id.id, "alice:AIueg8ag5ALfqeEyKdLnva1Wvi0=") == 0);
    deallocate_ACL_vector(&acl);
    EXPECT(ZBADVERSION, zoo_set_acl(alice, "/acl", 5, &ZOO_READ_ACL_UNSAFE));
    EXPECT(ZOK, zoo_set_acl(alice, "/acl", 0, &ZOO_READ_ACL_UNSAFE));
    EXPECT(ZOK, zoo_get(zh, "/acl", 0, buffer, &len, &stat));
    HOLDS(stat.aversion == 1);
    EXPECT(ZNOAUTH, zoo_set(alice, "/acl", "x", 1, -1));
    EXPECT(ZOK, zookeeper_close(alice));
    puts("ok acl");
}

static void test_multi(zhandle_t *zh) {
    char path[64], path2[64];
    struct Stat stat;
    zoo_op_t ops[4];
    zoo_op_result_t results[4];
    memset(results, 0, sizeof results);
    zoo_create_op_init(&ops[0], "/m", "1", 1, OPEN, 0, path, sizeof path);
    zoo_create_op_init(&ops[1], "/m/s-", "1", 1, OPEN, ZOO_SEQUENCE, path2, sizeof path2);
    zoo_set_op_init(&ops[2], "/m", "22", 2, 0, &stat);
    zoo_check_op_init(&ops[3], "/m", 1);
    EXPECT(ZOK, zoo_multi(zh, 4, ops, results));
    HOLDS(strcmp(path2, "/m/s-0000000000") == 0 && stat.version == 1 && results[3].err == ZOK);
    zoo_delete_op_init(&ops[0], "/m/s-0000000000", -1);
    zoo_check_op_init(&ops[1], "/m", 9);
    zoo_delete_op_init(&ops[2], "/m", -1);
    EXPECT(ZBADVERSION, zoo_multi(zh, 3, ops, results));
    HOLDS(results[0].err == ZOK && results[1].err == ZBADVERSION && results[2].err == ZRUNTIMEINCONSISTENCY);
    EXPECT(ZOK, zoo_exists(zh, "/m/s-0000000000", 0, &stat));
    EXPECT(ZOK, zoo_multi(zh, 1, ops, results));
    EXPECT(ZNONODE, zoo_exists(zh, "/m/s-0000000000", 0, &stat));
    puts("ok multi");
}

/* Completions of a burst, which must come in the order of their calls. */
struct burst {
    struct heard h;
    int next;
};

static void on_created(int rc, const char *value, const void *data) {
    struct burst *burst = ((void **)data)[0];
    int number = (int)(long)((void **)data)[1];
    char expected[64];
    snprintf(expected, sizeof expected, "/burst/n-%010d", number);
    EXPECT(ZOK, rc);
    HOLDS(number == burst->next && strcmp(value, expected) == 0);
    pthread_mutex_lock(&burst->h.lock);
    burst->next++;
    pthread_cond_broadcast(&burst->h.changed);
    pthread_mutex_unlock(&burst->h.lock);
    free((void *)data);
}

static void on_synced(int rc, const char *value, const void *data) {
    struct heard *h = (struct heard *)data;
    EXPECT(ZOK, rc);
    HOLDS(strcmp(value, "/burst") == 0);
    on_event(NULL, 0, 0, "synced", h);
}

static void test_burst(zhandle_t *zh) {
    struct burst burst;
    heard_init(&burst.h);
    burst.h.is_connected = burst.h.connects = 1;
    burst.next = 0;
    EXPECT(ZOK, zoo_create(zh, "/burst", "", 0, OPEN, 0, NULL, 0));
    for (long i = 0; i < BURST; i++) {
        void **data = malloc(2 * sizeof *data);
        data[0] = &burst;
        data[1] = (void *)i;
        EXPECT(ZOK, zoo_acreate(zh, "/burst/n-", "x", 1, OPEN, ZOO_SEQUENCE, on_created, data));
    }
    EXPECT(ZOK, zoo_async(zh, "/burst", on_synced, &burst.h));
    WAIT_EVENTS(&burst.h, 1);
    HOLDS(burst.next == BURST);
    puts("ok burst");
}

/* Breaks the connection below the client: it must come back to its session, with its watches. */
static void cut_connections(void) {
    unsigned short port = (unsigned short)atoi(strrchr(host, ':') + 1);
    for (int fd = 3; fd < 256; fd++) {
        struct sockaddr_in peer;
        socklen_t len = sizeof peer;
        if (getpeername(fd, (struct sockaddr *)&peer, &len) == 0 && peer.sin_family == AF_INET &&
            ntohs(peer.sin_port) == port) {
            shutdown(fd, SHUT_RDWR);
        }
    }
}

static void test_reconnect(void) {
    struct heard session, watch, other;
    struct Stat stat;
    struct String_vector names;
    char buffer[8];
    int len = sizeof buffer;
    zhandle_t *zh = open_handle(&session, NULL);
    int64_t id = zoo_client_id(zh)->client_id;
    heard_init(&watch);
    watch.is_connected = watch.connects = 1;
    EXPECT(ZOK, zoo_create(zh, "/r", "", 0, OPEN, 0, NULL, 0));
    EXPECT(ZOK, zoo_create(zh, "/r/e", "", 0, OPEN, ZOO_EPHEMERAL, NULL, 0));
    EXPECT(ZOK, zoo_wget(zh, "/r", on_event, &watch, buffer, &len, &stat));
    EXPECT(ZOK, zoo_wget_children(zh, "/r", on_event, &watch, &names));
    EXPECT(ZNONODE, zoo_wexists(zh, "/r2", on_event, &watch, &stat));
    cut_connections();
    WAIT_CONNECTS(&session, 2);
    HOLDS(zoo_client_id(zh)->client_id == id);
    EXPECT(ZOK, zoo_exists(zh, "/r/e", 0, &stat));
    HOLDS(stat.ephemeralOwner == id);
    /* Watchers of a handle are told of its connection too; events alone count here. */
    zhandle_t *zh2 = open_handle(&other, NULL);
    EXPECT(ZOK, zoo_set(zh2, "/r", "1", 1, -1));
    TAKE_EVENT(&watch, ZOO_CHANGED_EVENT, "/r");
    EXPECT(ZOK, zoo_create(zh2, "/r/a", "", 0, OPEN, 0, NULL, 0));
    TAKE_EVENT(&watch, ZOO_CHILD_EVENT, "/r");
    EXPECT(ZOK, zoo_create(zh2, "/r2", "", 0, OPEN, 0, NULL, 0));
    TAKE_EVENT(&watch, ZOO_CREATED_EVENT, "/r2");
    EXPECT(ZOK, zookeeper_close(zh));
    EXPECT(ZNONODE, zoo_exists(zh2, "/r/e", 0, &stat));
    EXPECT(ZOK, zookeeper_close(zh2));
    puts("ok reconnect");
}

/* A process that ends without closing leaves its session to whoever knows id and password. */
static void test_reattach(void) {
    int ends[2];
    clientid_t id;
    HOLDS(pipe(ends) == 0);
    fflush(stdout);
    pid_t child = fork();
    HOLDS(child >= 0);
    if (child == 0) {
        struct heard h;
        zhandle_t *zh = open_handle(&h, NULL);
        EXPECT(ZOK, zoo_create(zh, "/left", "", 0, OPEN, ZOO_EPHEMERAL, NULL, 0));
        HOLDS(write(ends[1], zoo_client_id(zh), sizeof id) == sizeof id);
        _exit(0);
    }
    int status;
    HOLDS(waitpid(child, &status, 0) == child && status == 0);
    HOLDS(read(ends[0], &id, sizeof id) == sizeof id);
    struct heard h;
    struct Stat stat;
    zhandle_t *zh = open_handle(&h, &id);
    HOLDS(zoo_client_id(zh)->client_id == id.client_id);
    EXPECT(ZOK, zoo_exists(zh, "/left", 0, &stat));
    HOLDS(stat.ephemeralOwner == id.client_id);
    EXPECT(ZOK, zookeeper_close(zh));
    zh = open_handle(&h, NULL);
    EXPECT(ZNONODE, zoo_exists(zh, "/left", 0, &stat));
    EXPECT(ZOK, zookeeper_close(zh));
    puts("ok reattach");
}

static void on_state(zhandle_t *zh, int type, int state, const char *path, void *context) {
    (void)zh, (void)path;
    if (type == ZOO_SESSION_EVENT && state == ZOO_EXPIRED_SESSION_STATE) {
        on_event(zh, 0, 0, "expired", context);
    }
}

static void test_expired(void) {
    struct heard h;
    clientid_t nobody = {.client_id = 0x1234567812345678, .passwd = "0123456789abcde"};
    heard_init(&h);
    h.is_connected = h.connects = 1;
    zhandle_t *zh = zookeeper_init(host, on_state, TIMEOUT_MS, &nobody, &h, 0);
    HOLDS(zh != NULL);
    WAIT_EVENTS(&h, 1);
    HOLDS(zoo_state(zh) == ZOO_EXPIRED_SESSION_STATE && is_unrecoverable(zh) == ZINVALIDSTATE);
    zookeeper_close(zh);
    puts("ok expired");
}

int main(int argc, char **argv) {
    HOLDS(argc == 2);
    host = argv[1];
    zoo_set_debug_level(ZOO_LOG_LEVEL_ERROR);
    struct heard h;
    zhandle_t *zh = open_handle(&h, NULL);
    HOLDS(zoo_recv_timeout(zh) == TIMEOUT_MS && zoo_client_id(zh)->client_id != 0);
    test_create(zh);
    test_data(zh);
    test_children(zh);
    test_watches(zh);
    test_acl(zh);
    test_multi(zh);
    test_burst(zh);
    EXPECT(ZOK, zookeeper_close(zh));
    test_reconnect();
    test_reattach();
    test_expired();
    return 0;
}
