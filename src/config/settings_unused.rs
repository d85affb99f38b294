//! Settings of Java's that this server does not obey: without a word, with a warning, or by not starting.

use super::settings::Outcome::{Refused as Impossible, Taken, Warn};
use super::settings::Source::{Bare, File, PassThrough, PassThroughOrBare, Property};
use super::settings::Verdict::{Idle, Refused, Silent};
use super::settings::{Setting, text, unused, unused_flag, unused_number};

const NO_ADMIN: &str = "there is no AdminServer yet; use the four-letter words";
const NO_METRICS: &str = "there is no metrics endpoint yet; use the four-letter word mntr";
const NO_TLS_PORT: &str = "no port of this server speaks TLS yet";
const NO_SASL: &str = "nobody can authenticate with SASL yet";
const NO_PAUSES: &str = "there is no JVM that could pause";
const NO_CACHE: &str = "answers are made from the tree at once; there is no cache of them";
const NO_POOL: &str = "there are no such threads; see oxkeeper.cores and oxkeeper.shards";
const NO_BUFFERS: &str = "buffers are not tuned this way";
const NO_OTHER_WATCHES: &str = "there is one index of watches only, compact and always cleaned up";
const NO_WAIT: &str = "this server does not wait for threads when it stops";
const NO_PATH_STATS: &str = "paths are not sampled";
const NO_PACKET_RING: &str = "packets are not kept for later";
const NO_QUEUES: &str = "packets to peers never block a thread here";
const TESTS_ONLY: &str = "it is meant for ZooKeeper's own tests; remove it";
const USE_JAVA_FOR_TLS: &str = "clients or peers that expect TLS would be served without it; remove it, or keep the \
                                Java server until TLS is there";
const USE_JAVA_FOR_SASL: &str = "those who are expected to authenticate with SASL could not; remove it, or keep the \
                                 Java server until SASL is there";

pub(super) const SETTINGS: &[Setting] = &[
    // TLS: refused if it opens a port, asks a peer for it, or tightens a check; what only describes it is idle.
    unused_number("secureClientPort", File, 0, Refused(USE_JAVA_FOR_TLS)),
    unused("secureClientPortAddress", File, "", Refused(USE_JAVA_FOR_TLS)),
    unused_flag("client.portUnification", PassThrough, Refused(USE_JAVA_FOR_TLS)),
    unused_flag("sslQuorum", File, Refused(USE_JAVA_FOR_TLS)),
    unused_flag("portUnification", File, Refused(USE_JAVA_FOR_TLS)),
    unused_flag("sslQuorumReloadCertFiles", File, Idle(NO_TLS_PORT)),
    unused_flag("client.certReload", PassThrough, Idle(NO_TLS_PORT)),
    unused_flag("ssl.crl", PassThrough, Refused(USE_JAVA_FOR_TLS)),
    unused_flag("ssl.ocsp", PassThrough, Refused(USE_JAVA_FOR_TLS)),
    unused_flag("ssl.quorum.crl", PassThrough, Refused(USE_JAVA_FOR_TLS)),
    unused_flag("ssl.quorum.ocsp", PassThrough, Refused(USE_JAVA_FOR_TLS)),
    unused("ssl.context.supplier.class", PassThrough, "", Refused("Java classes cannot be loaded; remove it")),
    unused("ssl.quorum.context.supplier.class", PassThrough, "", Refused("Java classes cannot be loaded; remove it")),
    unused("ssl.authProvider", PassThrough, "x509", Refused("only x509 will ever be here; remove it")),
    unused("ssl.*", PassThrough, "", Idle(NO_TLS_PORT)),
    unused_flag("fips-mode", PassThrough, Silent),
    // SASL and Kerberos, likewise.
    unused("java.security.auth.login.config", Bare, "", Refused(USE_JAVA_FOR_SASL)),
    unused_flag("quorum.auth.enableSasl", File, Refused(USE_JAVA_FOR_SASL)),
    unused_flag("quorum.auth.learnerRequireSasl", File, Refused(USE_JAVA_FOR_SASL)),
    unused_flag("quorum.auth.serverRequireSasl", File, Refused(USE_JAVA_FOR_SASL)),
    unused("quorum.auth.learner.saslLoginContext", File, "QuorumLearner", Idle(NO_SASL)),
    unused("quorum.auth.server.saslLoginContext", File, "QuorumServer", Idle(NO_SASL)),
    unused("quorum.auth.kerberos.servicePrincipal", File, "zkquorum/localhost", Idle(NO_SASL)),
    unused_flag("sessionRequireClientSASLAuth", PassThrough, Refused(USE_JAVA_FOR_SASL)),
    unused_flag("requireKerberosConfig", PassThrough, Refused(USE_JAVA_FOR_SASL)),
    unused("letAnySaslUserDoX", PassThrough, "", Refused(USE_JAVA_FOR_SASL)),
    unused_flag("allowSaslFailedClients", PassThrough, Idle(NO_SASL)),
    unused("superUser", PassThrough, "", Idle(NO_SASL)),
    unused("superUser.*", PassThrough, "", Idle(NO_SASL)),
    unused("SASLAuthenticationProvider.superPassword", PassThrough, "", Idle(NO_SASL)),
    unused("X509AuthenticationProvider.superUser", PassThrough, "", Idle(NO_TLS_PORT)),
    unused("sasl.serverconfig", PassThrough, "Server", Idle(NO_SASL)),
    unused("security.auth_to_local", PassThrough, "DEFAULT", Idle(NO_SASL)),
    unused_flag("kerberos.canonicalizeHostNames", PassThrough, Idle("host names are used as they are written")),
    unused_flag("kerberos.removeHostFromPrincipal", PassThrough, Idle(NO_SASL)),
    unused_flag("kerberos.removeRealmFromPrincipal", PassThrough, Idle(NO_SASL)),
    unused_number("kerberos.minReLoginTimeMs", PassThrough, 60_000, Idle(NO_SASL)),
    unused("kinit", PassThrough, "/usr/bin/kinit", Idle(NO_SASL)),
    unused("server.realm", Property, "", Idle(NO_SASL)),
    unused("server.principal", Property, "", Idle(NO_SASL)),
    // What an operator watches.
    unused_flag("admin.enableServer", PassThrough, Idle(NO_ADMIN)),
    unused("admin.*", PassThrough, "", Idle(NO_ADMIN)),
    unused_flag("IPAuthenticationProvider.usexforwardedfor", PassThrough, Idle(NO_ADMIN)),
    text("metricsProvider.className", File, "", |_, class| match class.strip_prefix("org.apache.zookeeper.metrics.") {
        Some("impl.DefaultMetricsProvider" | "impl.NullMetricsProvider") => Taken,
        Some("prometheus.PrometheusMetricsProvider") => Warn(NO_METRICS.to_owned()),
        Some(_) | None => Impossible("Java classes cannot be loaded; remove it, and use the word mntr".to_owned()),
    }),
    unused("metricsProvider.*", File, "", Idle(NO_METRICS)),
    unused_flag("audit.enable", PassThrough, Refused("no audit log would be written; remove it if none is needed")),
    unused("audit.impl.class", PassThrough, "", Idle("there is no audit log yet")),
    unused_flag("jvm.pause.monitor", File, Idle(NO_PAUSES)),
    unused_number("jvm.pause.info-threshold.ms", File, 1000, Silent),
    unused_number("jvm.pause.warn-threshold.ms", File, 10_000, Silent),
    unused_number("jvm.pause.sleep.time.ms", File, 500, Silent),
    unused("pathStats.*", PassThrough, "", Idle(NO_PATH_STATS)),
    unused_flag("pathStats.enabled", PassThrough, Idle(NO_PATH_STATS)),
    unused_flag("messageTracker.Enabled", PassThrough, Idle(NO_PACKET_RING)),
    unused_number("messageTracker.BufferSize", PassThrough, 10, Idle(NO_PACKET_RING)),
    // How Java does it.
    unused_number("quorum.cnxn.threads.size", File, 20, Idle(NO_POOL)),
    unused_number("nio.numSelectorThreads", PassThrough, -1, Idle(NO_POOL)),
    unused_number("nio.numWorkerThreads", PassThrough, -1, Idle(NO_POOL)),
    unused_number("nio.directBufferBytes", PassThrough, 65536, Idle(NO_BUFFERS)),
    unused_number("nio.shutdownTimeout", PassThrough, 5000, Idle(NO_WAIT)),
    unused("netty.*", PassThrough, "", Idle("this is about Java's Netty")),
    unused_number("commitProcessor.numWorkerThreads", PassThrough, -1, Idle(NO_POOL)),
    unused_number("commitProcessor.maxReadBatchSize", PassThrough, -1, Idle(NO_POOL)),
    unused_number("commitProcessor.maxCommitBatchSize", PassThrough, 1, Idle(NO_POOL)),
    unused_number("commitProcessor.shutdownTimeout", PassThrough, 5000, Idle(NO_WAIT)),
    unused_number("request_throttler.shutdownTimeout", PassThrough, 10_000, Idle(NO_WAIT)),
    unused_number("intBufferStartingSizeBytes", PassThrough, 1024, Idle(NO_BUFFERS)),
    unused_number("maxResponseCacheSize", PassThrough, 400, Idle(NO_CACHE)),
    unused_number("maxGetChildrenResponseCacheSize", PassThrough, 400, Idle(NO_CACHE)),
    unused("watchManagerName", PassThrough, "org.apache.zookeeper.server.watch.WatchManager", Idle(NO_OTHER_WATCHES)),
    unused_number("watcherCleanThreadsNum", PassThrough, 2, Idle(NO_OTHER_WATCHES)),
    unused_number("watcherCleanThreshold", PassThrough, 1000, Idle(NO_OTHER_WATCHES)),
    unused_number("watcherCleanIntervalInSeconds", PassThrough, 600, Idle(NO_OTHER_WATCHES)),
    unused_number("maxInProcessingDeadWatchers", PassThrough, -1, Idle(NO_OTHER_WATCHES)),
    unused_number("bitHashCacheSize", PassThrough, 10, Idle(NO_OTHER_WATCHES)),
    unused_number("leader.ackLoggingFrequency", PassThrough, 1000, Idle("acks are not logged")),
    unused_flag("leader.closeSocketAsync", PassThroughOrBare, Idle(NO_QUEUES)),
    unused_flag("learner.closeSocketAsync", PassThroughOrBare, Idle(NO_QUEUES)),
    unused_flag("learner.asyncSending", PassThroughOrBare, Idle(NO_QUEUES)),
    unused_flag("forward_learner_requests_to_commit_processor_disabled", PassThrough, Idle(NO_QUEUES)),
    unused_flag("follower.skipLearnerRequestToNextProcessor", PassThrough, Idle(NO_QUEUES)),
    // What would change the data or the order of things.
    unused_flag("emulate353TTLNodes", PassThrough, Refused("TTL nodes of ZooKeeper 3.5.3 would be misread; remove it")),
    unused("oraclePath", File, "", Refused("two servers cannot agree through an oracle here; use three")),
    unused("testingonly.initialZxid", PassThrough, "", Refused(TESTS_ONLY)),
    unused("test.*", PassThrough, "", Refused(TESTS_ONLY)),
    unused("controllerPort", PassThrough, "", Refused(TESTS_ONLY)),
    // For clients, for scripts, for Java's logs.
    unused("version", File, "", Silent),
    unused("client.secure", PassThrough, "", Silent),
    unused("clientCnxnSocket", PassThrough, "", Silent),
    unused("sasl.client*", PassThrough, "", Silent),
    unused("disableAutoWatchReset", PassThrough, "", Silent),
    unused("request.timeout", PassThrough, "", Silent),
    unused("hostProvider.*", PassThrough, "", Silent),
    unused("shuffleDnsResponse", PassThrough, "", Silent),
    unused("jmx.*", PassThrough, "", Silent),
    unused("log.*", Property, "", Silent),
    unused("tracelog.*", Property, "", Silent),
    unused("root.logger", Property, "", Silent),
    unused("console.threshold", Property, "", Silent),
    unused("auditlog.*", Property, "", Silent),
];
