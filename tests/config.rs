//! How a server is set up: each rule of zoo.cfg, of system properties and of the command line, by its checklist id.

use oxkeeper::config::{
    Arguments, Config, ConfigError, ConfigFile, Extensions, FourLetterWhitelist, HostPort, Mode, OtherFiles, Parsed,
    Role, Start, SystemProperties, Warning,
};
use oxkeeper::shard::throttle::RequestThrottle;
use oxkeeper::types::digest_algorithm::DigestAlgorithm;
use oxkeeper::types::ids::ServerId;
use proptest::prelude::*;
use std::path::Path;

/// What a server is given.
#[derive(Default, Clone)]
struct Given<'a> {
    file: &'a str,
    flags: &'a str,
    myid: Option<&'a str>,
    dynamic: Option<&'a str>,
    next_dynamic: Option<&'a str>,
}

impl Given<'_> {
    fn parse(&self) -> Parsed {
        let file = ConfigFile::parse(self.file.as_bytes()).map_err(|error| vec![error])?;
        let others = OtherFiles {
            myid: self.myid.map(str::as_bytes),
            dynamic: self.dynamic.map(str::as_bytes),
            next_dynamic: self.next_dynamic.map(str::as_bytes),
        };
        Config::from_file(&file, &others, &SystemProperties::new(None, Some(self.flags), &[]))
    }

    fn config(&self) -> (Config, Vec<Warning>) {
        self.parse().unwrap_or_else(|errors| panic!("{}\n{errors:#?}", self.file))
    }

    fn errors(&self) -> Vec<ConfigError> {
        match self.parse() {
            Ok((config, _)) => panic!("{} is accepted: {config:#?}", self.file),
            Err(errors) => errors,
        }
    }
}

const BASE: &str = "dataDir=/d\nclientPort=2181\n";

fn with(lines: &str) -> String {
    format!("{BASE}{lines}")
}

fn config(lines: &str) -> Config {
    Given { file: &with(lines), ..Given::default() }.config().0
}

/// Flags on top of lines.
fn config_of(lines: &str, flags: &str) -> Config {
    Given { file: &with(lines), flags, ..Given::default() }.config().0
}

/// The warnings' keys, lines and texts, one per line.
fn warnings(lines: &str, flags: &str) -> String {
    let (_, warnings) = Given { file: &with(lines), flags, ..Given::default() }.config();
    warnings.iter().map(|warning| format!("{warning}\n")).collect()
}

/// The start fails with code 2, and some error says `text`.
fn check_fatal(given: &Given<'_>, text: &str) {
    let errors = given.errors();
    assert!(errors.iter().all(|error| error.exit_code() == 2), "{errors:?}");
    let said: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert!(said.iter().any(|said| said.contains(text)), "{text} is not in {said:#?}");
}

fn check_fatal_lines(lines: &str, text: &str) {
    check_fatal(&Given { file: &with(lines), ..Given::default() }, text);
}

// S-068, S-069
#[test]
fn comments_at_the_end_of_a_line_are_part_of_the_value() {
    check_fatal_lines("tickTime=2000 # x", "line 3: tickTime=2000 # x cannot be used");
    check_fatal_lines("tickTime=", "tickTime=");
    let config = config("tickTime : 1000\n! c\nmaxClientCnxns\\\n = 7\ntickTime=\\u0032000\n;\n");
    assert_eq!((config.tick_time_ms, config.max_client_cnxns), (2000, 7));
}

// S-068
#[test]
fn a_repeated_key_is_mentioned() {
    assert!(warnings("tickTime=1\ntickTime=2", "").contains("line 4: tickTime: set again; line 3"));
}

// S-070
#[test]
fn every_fatal_combination_names_its_key() {
    let fatal = |file: &str, text: &str| check_fatal(&Given { file, ..Given::default() }, text);
    fatal("clientPort=2181", "dataDir is not set");
    fatal("dataDir=/d\nclientPortAddress=h", "clientPortAddress");
    fatal("dataDir=/d\nsecureClientPortAddress=h", "secureClientPortAddress");
    for (lines, text) in [
        ("tickTime=0", "tickTime=0 cannot be used: wants a whole number of milliseconds from 1 to"),
        ("tickTime=99999999999", "tickTime"),
        ("clientPort=70000", "clientPort"),
        ("clientPort=-1", "clientPort"),
        ("minSessionTimeout=5\nmaxSessionTimeout=4", "line 4: minSessionTimeout"),
        ("minSessionTimeout=60001", "maxSessionTimeout, 60000 ms"),
        ("electionAlg=2", "wants a whole number, 3"),
        ("observerMasterPort=65536", "wants a port up to 65535"),
        ("electionAlg=x", "electionAlg"),
        ("peerType=leader", "peerType=leader cannot be used: wants participant or observer"),
        ("standaloneEnabled=yes", "standaloneEnabled=yes cannot be used: wants true or false"),
        ("standaloneEnabled=false", "line 3: standaloneEnabled"),
        ("localSessionsEnabled=1", "localSessionsEnabled"),
        ("server.1=a:1:2:observer", "observers but no participants"),
        ("server.1=a:1:2\nserver.2=b:1:2:observer", "observers"),
        ("server.1=a:1", "line 3: server.1=a:1 cannot be used: wants host:quorumPort:electionPort"),
        ("server.one=a:1:2", "server.one"),
        ("quorum.auth.serverRequireSasl=true", "quorum.auth.serverRequireSasl"),
        ("quorum.auth.learnerRequireSasl=true", "quorum.auth.learnerRequireSasl"),
        ("metricsProvider.className=com.example.Mine", "metricsProvider.className=com.example.Mine"),
        ("dynamicConfigFile=/f\nserver.1=a:1:2", "line 4: server.1: belongs into the file"),
        ("dynamicConfigFile=/f\ngroup.1=1", "group.1"),
        ("dynamicConfigFile=/f\nweight.1=1", "weight.1"),
        ("dynamicConfigFile=/f", "line 3: dynamicConfigFile: /f cannot be read"),
        ("dataDir=\\u12", "dataDir"),
        ("dataDir=", "dataDir"),
    ] {
        check_fatal_lines(lines, text);
    }
    let three = "server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\n";
    let ensemble = |lines: &str, myid, text: &str| {
        check_fatal(&Given { file: &with(&format!("{three}{lines}")), myid, ..Given::default() }, text);
    };
    ensemble("syncLimit=5", Some("1"), "initLimit is not set");
    ensemble("initLimit=5", Some("1"), "syncLimit is not set");
    ensemble("initLimit=5\nsyncLimit=5", None, "myid is not set");
    ensemble("initLimit=5\nsyncLimit=5", Some("4"), "server.4");
    ensemble("initLimit=5\nsyncLimit=5", Some("one"), "myid=one");
    ensemble("initLimit=5\nsyncLimit=5", Some(""), "myid=");
    ensemble("initLimit=5\nsyncLimit=5", Some("1 "), "myid=1 ");
}

// S-070: a lone server reads its myid too.
#[test]
fn a_myid_that_is_no_number_is_fatal_for_a_single_server_too() {
    check_fatal(&Given { file: BASE, myid: Some("x"), ..Given::default() }, "myid=x");
    let (config, _) = Given { file: BASE, myid: Some("7\r\nrest"), ..Given::default() }.config();
    assert_eq!(config.server_id, Some(ServerId(7)));
}

// S-071
#[test]
fn unknown_keys_are_accepted_with_one_warning_each() {
    let said = warnings("ticktime=5\nnonsense.of.mine=1\n", "-Dzookeeper.snapcount=3 -Djava.io.tmpdir=/t");
    assert_eq!(
        said,
        "line 3: ticktime: is not known and has no effect; is tickTime meant?\n\
         line 4: nonsense.of.mine: is not known and has no effect\n\
         JVMFLAGS: zookeeper.snapcount: is not known and has no effect; is snapCount meant?\n"
    );
}

#[test]
fn unknown_keys_are_errors_when_strict() {
    check_fatal_lines("oxkeeper.strict=true\nticktime=5", "line 4: ticktime: is not known");
    let given = Given { file: BASE, flags: "-Doxkeeper.strict=true -Dzookeeper.x=1", ..Given::default() };
    check_fatal(&given, "JVMFLAGS: zookeeper.x: is not known");
}

// S-072
#[test]
fn zoo_cfg_beats_the_command_line_for_the_same_property() {
    assert_eq!(config_of("snapCount=5", "-Dzookeeper.snapCount=6").snap_count, 5);
    assert_eq!(config_of("", "-Dzookeeper.snapCount=6").snap_count, 6);
    assert_eq!(config_of("", "-DsnapCount=6").snap_count, 100_000);
    assert_eq!(config_of("zookeeper.snapCount=5", "").snap_count, 100_000);
    assert_eq!(config_of("tickTime=5", "-Dzookeeper.tickTime=6").tick_time_ms, 5);
    assert_eq!(config_of("", "-Dzookeeper.tickTime=6").tick_time_ms, 3000);
    assert!(warnings("", "-Dzookeeper.tickTime=6").contains("zookeeper.tickTime: has no effect; write tickTime into"));
    assert!(!config_of("syncEnabled=true", "-Dzookeeper.observer.syncEnabled=false").sync_enabled);
}

// S-072
#[test]
fn some_properties_count_without_the_prefix() {
    let threshold = |lines, flags| config_of(lines, flags).fsync_warning_threshold_ms;
    assert_eq!(threshold("", "-Dfsync.warningthresholdms=5"), 5);
    assert_eq!(threshold("", "-Dfsync.warningthresholdms=5 -Dzookeeper.fsync.warningthresholdms=6"), 6);
    assert_eq!(threshold("fsync.warningthresholdms=7", "-Dfsync.warningthresholdms=5"), 7);
}

// S-073
#[test]
fn names_of_the_guide_that_do_nothing_point_to_those_that_work() {
    let said = warnings("requestThrottleLimit=5\nzookeeper.snapCount=7\njute.maxbuffer=9\nzookeeper.x=1", "");
    assert_eq!(
        said,
        "line 3: requestThrottleLimit: has no effect, as in ZooKeeper, although its guide says so; write \
         request_throttle_max_requests\n\
         line 4: zookeeper.snapCount: has no effect in this file, as in ZooKeeper; write snapCount into zoo.cfg or give \
         -Dzookeeper.snapCount=…\n\
         line 5: jute.maxbuffer: has no effect in this file, as in ZooKeeper; give -Djute.maxbuffer=… on the command \
         line or in SERVER_JVMFLAGS\n\
         line 6: zookeeper.x: is not known and has no effect\n"
    );
    let config = config("requestThrottleLimit=5\njute.maxbuffer=9");
    assert_eq!((config.request_throttle_max_requests, config.jute_maxbuffer_bytes), (0, 0xf_ffff));
}

// C-179
#[test]
fn the_request_throttle_is_off_unless_asked_for_and_then_obeyed() {
    let throttle = |lines| oxkeeper::io::settings::resolve(&config(lines), 1).shard.request_throttle;
    assert_eq!(throttle("throttled_op_wait_time=5"), None);
    let lines = "request_throttle_max_requests=100\nthrottled_op_wait_time=5\nrequest_stale_latency_check=true\n\
                 oxkeeper.shards=4";
    let (requests_max, op_wait) = (25, Some(std::time::Duration::from_millis(5)));
    assert_eq!(throttle(lines), Some(RequestThrottle { requests_max, op_wait, drops_stale: true }));
    assert_eq!(warnings(lines, ""), "");
    assert!(warnings("request_throttle_stall_time=5", "").contains("looked at again"));
}

// S-074
#[test]
fn flags_come_from_both_variables_and_the_command_line_wins() {
    let words = ["-Dzookeeper.maxCnxns=3".to_owned()];
    let flags = SystemProperties::new(
        Some("-Xmx1g -Dzookeeper.snapCount=1000 -Dzookeeper.maxCnxns=1 -Dzookeeper.flushDelay=9"),
        Some("-Dzookeeper.snapCount=2000 -Dzookeeper.maxCnxns=2 -server"),
        &words,
    );
    let file = ConfigFile::parse(BASE.as_bytes()).unwrap();
    let (config, _) = Config::from_file(&file, &OtherFiles::default(), &flags).unwrap();
    assert_eq!((config.snap_count, config.max_cnxns, config.flush_delay_ms), (2000, 3, 9));
    assert_eq!(config.max_write_queue_poll_time_ms, 3);
}

// S-075
#[test]
fn jute_maxbuffer_is_a_flag_and_the_extra_follows_it() {
    for (lines, flags, expected) in [
        ("", "", (0xf_ffff, 0xf_ffff)),
        ("", "-Djute.maxbuffer=0x200000", (0x20_0000, 0x20_0000)),
        ("", "-Djute.maxbuffer=100", (100, 1024)),
        ("", "-Djute.maxbuffer=2147483647", (0x7fff_ffff, 0)),
        ("jute.maxbuffer.extrasize=5000", "-Djute.maxbuffer=100", (100, 5000)),
        ("", "-Dzookeeper.jute.maxbuffer.extrasize=5", (0xf_ffff, 1024)),
        ("", "-Djute.maxbuffer=huge", (0xf_ffff, 0xf_ffff)),
    ] {
        let config = config_of(lines, flags);
        assert_eq!((config.jute_maxbuffer_bytes, config.jute_maxbuffer_extrasize_bytes), expected, "{lines} {flags}");
    }
}

// S-076, S-080
#[test]
fn an_ensemble_is_read_and_printed() {
    let file = with(
        "initLimit=10\nsyncLimit=5\nserver.1=zk1:2888:3888 \nserver.2=zk2:2888:3888:participant;2182\n\
         server.3=[::1]:2888:3888:observer;0.0.0.0:2183\n",
    );
    let (config, warnings) = Given { file: &file, myid: Some("1\n"), ..Given::default() }.config();
    assert_eq!(config.mode(), Mode::Distributed);
    assert_eq!(
        config.membership.config_text(),
        "server.1=zk1:2888:3888:participant\nserver.2=zk2:2888:3888:participant;0.0.0.0:2182\n\
         server.3=[0:0:0:0:0:0:0:1]:2888:3888:observer;0.0.0.0:2183\nversion=0"
    );
    assert_eq!(config.own_member().unwrap().client, Some(HostPort::wildcard(2181)));
    assert_eq!(config.connect_to_learner_master_limit_ticks, 10);
    assert!(warnings.iter().any(|warning| warning.text.contains("no server may fail")), "{warnings:?}");
}

// S-079
#[test]
fn client_port_and_server_line_must_agree() {
    let given = |lines: &str, line: &str| {
        let file = format!("dataDir=/d\n{lines}\nserver.1=a:1:2;{line}\n");
        Given { file: &file, myid: Some("1"), ..Given::default() }.parse().map(|(config, _)| config.client_port_address)
    };
    for (lines, line, expected) in [
        ("", "2181", Some("0.0.0.0:2181")),
        ("clientPort=2181", "2181", Some("0.0.0.0:2181")),
        ("clientPort=2181", "10.0.0.1:2181", Some("10.0.0.1:2181")),
        ("clientPort=2181", "2182", None),
        ("clientPort=2181\nclientPortAddress=10.0.0.1", "10.0.0.1:2181", Some("10.0.0.1:2181")),
        ("clientPort=2181\nclientPortAddress=10.0.0.1", "10.0.0.2:2181", None),
        ("clientPort=2181\nclientPortAddress=10.0.0.1", "2181", None),
        ("clientPort=2181\nclientPortAddress=0.0.0.0", "[::1]:2181", Some("[0:0:0:0:0:0:0:1]:2181")),
        ("clientPort=2181\nclientPortAddress=zk1", "10.0.0.2:2181", Some("10.0.0.2:2181")),
    ] {
        let got = given(lines, line).ok().map(|address| address.unwrap().to_string());
        assert_eq!(got.as_deref(), expected, "{lines} {line}");
    }
}

// S-080
#[test]
fn the_mode_follows_the_server_lines_and_standalone_enabled() {
    let mode = |lines: &str| {
        let file = with(&format!("initLimit=5\nsyncLimit=5\n{lines}"));
        Given { file: &file, myid: Some("1"), ..Given::default() }.parse().ok().map(|(config, _)| config.mode())
    };
    for (lines, expected) in [
        ("", Some(Mode::Standalone)),
        ("server.1=a:1:2", Some(Mode::Standalone)),
        ("server.1=a:1:2\nstandaloneEnabled=false", Some(Mode::Distributed)),
        ("server.1=a:1:2\nserver.2=b:1:2", Some(Mode::Distributed)),
        ("server.1=a:1:2\nserver.2=b:1:2:observer\nstandaloneEnabled=false", Some(Mode::Distributed)),
        ("server.1=a:1:2\nserver.2=b:1:2:observer", None),
        ("server.2=b:1:2:observer", None),
        ("standaloneEnabled=false", None),
    ] {
        assert_eq!(mode(lines), expected, "{lines}");
    }
    assert!(warnings("server.1=a:1:2", "").contains("runs standalone"));
    assert!(warnings("standaloneEnabled=TRUE", "").is_empty());
}

const THREE: &str = "initLimit=5\nsyncLimit=2\nserver.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\n";

fn member(lines: &str) -> Given<'_> {
    Given { file: lines, myid: Some("2"), ..Given::default() }
}

#[test]
fn times_of_failover_that_cannot_work_are_refused() {
    for (lines, text) in [
        ("oxkeeper.heartbeatMillis=40", "less than three heartbeats"),
        ("oxkeeper.heartbeatTimeoutMillis=7000", "more than syncLimit, 6000 ms"),
        ("oxkeeper.heartbeatMillis=0", "oxkeeper.heartbeatMillis=0"),
        ("oxkeeper.extensions=telepathy", "wants all, none, or a list of cumulativeAcks, heartbeats"),
        ("oxkeeper.extensions=none,heartbeats", "oxkeeper.extensions"),
    ] {
        check_fatal(&member(&with(&format!("{THREE}{lines}"))), text);
    }
    for lines in
        ["", "oxkeeper.heartbeatMillis=40\noxkeeper.extensions=-heartbeats", "oxkeeper.heartbeatTimeoutMillis=6000"]
    {
        let (_, warnings) = member(&with(&format!("{THREE}{lines}"))).config();
        assert!(warnings.is_empty(), "{warnings:?}");
    }
}

#[test]
fn extensions_are_on_unless_they_are_switched_off() {
    let extensions = |value: &str| config(&format!("oxkeeper.extensions={value}")).extensions;
    let all = config("").extensions;
    assert!(all.heartbeats && all.leadership_transfer && all.cumulative_acks);
    assert_eq!((extensions("all"), extensions("none")), (all, Extensions::default()));
    assert_eq!(extensions("-heartbeats, -commitIndex"), Extensions { heartbeats: false, commit_index: false, ..all });
    assert_eq!(extensions("all,-heartbeats"), Extensions { heartbeats: false, ..all });
    assert_eq!(extensions("heartbeats"), Extensions { heartbeats: true, ..Extensions::default() });
}

#[test]
fn what_members_cannot_do_yet_is_said() {
    let lines = format!("{THREE}reconfigEnabled=true\nobserverMasterPort=2191\n");
    let given = Given { flags: "-Dreadonlymode.enabled=true -Dleader.nodelay=false", ..member(&lines) };
    let file = with(given.file);
    let (_, warnings) = Given { file: &file, ..given }.config();
    let keys: Vec<_> = warnings.iter().map(|warning| warning.key.as_str()).collect();
    assert_eq!(keys, ["leader.nodelay", "reconfigEnabled", "readonlymode.enabled", "observerMasterPort"]);
}

// S-080
#[test]
fn the_server_lines_decide_the_peer_type() {
    let file = with("peerType=observer\nserver.1=a:1:2");
    let (config, warnings) = Given { file: &file, myid: Some("1"), ..Given::default() }.config();
    assert_eq!(config.peer_type, Role::Participant);
    assert!(warnings.iter().any(|warning| warning.key == "peerType"));
}

// S-081
#[test]
fn session_timeouts_default_to_2_and_20_ticks() {
    let bounds = |lines| {
        let config = config(lines);
        (config.min_session_timeout_ms, config.max_session_timeout_ms)
    };
    assert_eq!(bounds(""), (6000, 60_000));
    assert_eq!(bounds("tickTime=2000"), (4000, 40_000));
    assert_eq!(bounds("tickTime=2000\nminSessionTimeout=10\nmaxSessionTimeout=-1"), (10, 40_000));
    assert_eq!(bounds("tickTime=2000000000\nminSessionTimeout=1"), (1, i32::MAX as u32));
}

// S-082, S-083
#[test]
fn limits_of_connections_may_be_off() {
    assert_eq!((config("").max_client_cnxns, config("").max_cnxns), (60, 0));
    assert_eq!(config("maxClientCnxns=0\nmaxCnxns=9").max_client_cnxns, 0);
    assert_eq!(config("maxClientCnxns=-1").max_client_cnxns, 0);
    assert_eq!(config("maxCnxns=9").max_cnxns, 9);
}

// S-084
#[test]
fn the_client_address_is_kept_as_written() {
    for (lines, expected) in [
        ("", "0.0.0.0:2181"),
        ("clientPortAddress=zk1.example.com", "zk1.example.com:2181"),
        ("clientPortAddress=::1", "[0:0:0:0:0:0:0:1]:2181"),
        ("clientPortAddress=0.0.0.0\nclientPort=0", "0.0.0.0:0"),
    ] {
        assert_eq!(config(lines).client_port_address.unwrap().to_string(), expected, "{lines}");
    }
    let (config, warnings) = Given { file: "dataDir=/d", ..Given::default() }.config();
    assert_eq!(config.client_port_address, None);
    assert_eq!(warnings[0].key, "clientPort");
}

// S-087 and the settings of TLS and SASL: what is not there and would be missed is refused.
#[test]
fn settings_that_protect_are_refused_while_they_are_not_there() {
    for (lines, flags, key) in [
        ("secureClientPort=2281", "", "line 3: secureClientPort"),
        ("client.portUnification=true", "", "client.portUnification"),
        ("sslQuorum=true", "", "sslQuorum"),
        ("portUnification=true", "", "portUnification"),
        ("ssl.crl=true", "", "ssl.crl"),
        ("", "-Dzookeeper.ssl.quorum.ocsp=true", "JVMFLAGS: ssl.quorum.ocsp"),
        ("ssl.context.supplier.class=x", "", "ssl.context.supplier.class"),
        ("quorum.auth.enableSasl=true", "", "quorum.auth.enableSasl"),
        ("sessionRequireClientSASLAuth=true", "", "sessionRequireClientSASLAuth"),
        ("enforce.auth.enabled=true\nenforce.auth.schemes=digest,sasl", "", "enforce.auth.schemes=sasl"),
        ("enforce.auth.enabled=true\nenforce.auth.schemes=ensemble", "", "enforce.auth.schemes=ensemble"),
        ("enforce.auth.enabled=true", "", "enforce.auth.schemes is not set"),
        (
            "enforce.auth.enabled=true\nenforce.auth.schemes=digest\nDigestAuthenticationProvider.enabled=false",
            "",
            "enforce.auth.schemes=digest",
        ),
        ("authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider", "", "authProvider.1="),
        ("", "-Dzookeeper.authProvider.x=com.example.Auth", "authProvider.x=com.example.Auth"),
        ("", "-Djava.security.auth.login.config=/etc/jaas.conf", "java.security.auth.login.config"),
        ("DigestAuthenticationProvider.digestAlg=MD5", "", "digestAlg=MD5"),
        ("serverCnxnFactory=com.example.Factory", "", "serverCnxnFactory"),
        ("audit.enable=true", "", "audit.enable"),
        ("emulate353TTLNodes=true", "", "emulate353TTLNodes"),
        ("oraclePath=/o", "", "oraclePath"),
        ("letAnySaslUserDoX=x", "", "letAnySaslUserDoX"),
    ] {
        check_fatal(&Given { file: &with(lines), flags, ..Given::default() }, key);
    }
    let secure = "dataDir=/d\nserver.1=a:1:2;;2281";
    check_fatal(&Given { file: secure, myid: Some("1"), ..Given::default() }, "server.1 is not supported yet");
}

#[test]
fn values_that_change_nothing_are_accepted_without_a_word() {
    let lines = "secureClientPort=0\nsslQuorum=false\nportUnification=false\nssl.crl=false\naudit.enable=false\n\
                 sslQuorumReloadCertFiles=false\nquorum.auth.enableSasl=false\nadmin.enableServer=false\n\
                 metricsProvider.className=org.apache.zookeeper.metrics.impl.DefaultMetricsProvider\n\
                 serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\nfips-mode=true\n\
                 client.secure=true\nemulate353TTLNodes=false\nmaxResponseCacheSize=400\nelectionAlg=3\n\
                 quorum.cnxn.threads.size=20\nautopurge.snapRetainCount=3\nssl.authProvider=x509\n";
    let flags = "-Dzookeeper.log.dir=/l -Dzookeeper.log.file=f -Dzookeeper.jmx.log4j.disable=true -Dlog4j.x=y";
    assert_eq!(warnings(lines, flags), "");
}

#[test]
fn settings_without_effect_say_why() {
    for (lines, text) in [
        ("admin.enableServer=true", "AdminServer"),
        ("admin.serverPort=9090", "AdminServer"),
        ("metricsProvider.httpPort=7001", "mntr"),
        ("metricsProvider.className=org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider", "mntr"),
        ("ssl.keyStore.location=/k", "TLS"),
        ("maxResponseCacheSize=0", "cache"),
        ("nio.numWorkerThreads=4", "oxkeeper.cores"),
        ("jvm.pause.monitor=true", "JVM"),
        ("superUser=x", "SASL"),
        ("netty.server.outstandingHandshake.limit=5", "Netty"),
    ] {
        let said = warnings(lines, "");
        assert!(said.starts_with("line 3: ") && said.contains(text), "{lines}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

// S-092
#[test]
fn schemes_that_are_there_can_be_enforced() {
    let ensemble = "authProvider.1=org.apache.zookeeper.server.auth.EnsembleAuthenticationProvider\n";
    let enforced = "ensembleAuthName=a, b\nenforce.auth.enabled=true\nenforce.auth.schemes=digest, ensemble";
    let config = config(&format!("{ensemble}{enforced}"));
    assert_eq!(config.enforce_auth_schemes, ["digest", "ensemble"]);
    assert_eq!(config.ensemble_auth_names, ["a", "b"]);
    assert!(config.ensemble_auth_enabled);
    assert!(warnings("ensembleAuthName=a", "").contains("EnsembleAuthenticationProvider"));
    assert!(super_config("enforce.auth.schemes=sasl").enforce_auth_schemes.is_empty(), "not enabled");
}

fn super_config(lines: &str) -> Config {
    config(&format!("DigestAuthenticationProvider.superDigest=super:D/InIHSb7yEEbrWz8b9l71RjZJU=\n{lines}"))
}

// S-091
#[test]
fn the_super_user_is_read_and_never_printed() {
    let config = super_config("DigestAuthenticationProvider.digestAlg=SHA3-256");
    assert_eq!(config.super_digest.as_ref().unwrap().0, "super:D/InIHSb7yEEbrWz8b9l71RjZJU=");
    assert_eq!(config.digest_alg, DigestAlgorithm::Sha3_256);
    assert!(!format!("{config:?}").contains("D/InIHSb7"));
    let config = super_config("DigestAuthenticationProvider.digestAlg=sha-512/256");
    assert_eq!(config.digest_alg, DigestAlgorithm::Sha512_256, "every hash that digest ids can be made with");
}

// S-093
#[test]
fn dangerous_words_are_exact_and_loud() {
    let (dangerous, careful) = (config("skipACL=yes\nforceSync=no"), config("skipACL=YES\nforceSync=No"));
    assert_eq!((dangerous.skip_acl, dangerous.force_sync), (true, false));
    assert_eq!((careful.skip_acl, careful.force_sync), (false, true));
    assert!(warnings("skipACL=yes", "").contains("ACLS ARE NOT CHECKED"));
    assert!(warnings("forceSync=no", "").contains("NOT FORCED TO DISK"));
    assert!(warnings("forceSync=No", "").contains("only the lower-case word no has an effect"));
    assert!(!config("leaderServes=no").leader_serves);
}

#[test]
fn flags_of_properties_are_lenient_and_numbers_may_be_hexadecimal() {
    let config = config("digest.enabled=yes\nsnapCount=0x10\ncommitLogCount=5\nextendedTypesEnabled=TRUE\nmaxCnxns=x");
    assert!(!config.digest_enabled);
    assert!(config.extended_types_enabled);
    assert_eq!((config.snap_count, config.commit_log_count, config.max_cnxns), (16, 500, 0));
    assert!(warnings("digest.enabled=yes", "").contains("counts as false"));
    assert!(warnings("snapCount=1", "").contains("1 is out of range; 2 is used"));
    assert!(warnings("maxCnxns=x", "").contains("\"x\" is not a whole number; 0 is used"));
}

// S-094, S-095
#[test]
fn a_dynamic_file_holds_the_members_and_its_name_the_version() {
    let file = with("initLimit=5\nsyncLimit=2\nreconfigEnabled=true\ndynamicConfigFile=/d/zoo.cfg.dynamic.10000000a\n");
    let dynamic = "server.1=a:1:2:participant;0.0.0.0:2181\nserver.2=b:1:2\nserver.3=c:1:2";
    let next = "server.1=a:1:2\nserver.2=b:1:2\nversion=20000000b";
    let given = |dynamic| Given {
        file: &file,
        myid: Some("1"),
        dynamic: Some(dynamic),
        next_dynamic: Some(next),
        ..Given::default()
    };
    let (config, _) = given(dynamic).config();
    assert_eq!(config.membership.version, 0x1_0000_000a);
    assert_eq!(config.membership.members.len(), 3);
    assert_eq!(config.last_seen_membership.as_ref().unwrap().version, 0x2_0000_000b);
    assert_eq!(config.global_outstanding_limit, 500);
    check_fatal(&given("server.1=a:1:2\nversion=5"), "dynamic file, line 2: version");
    check_fatal(&given("server.1=a:1:2\ntickTime=5"), "dynamic file, line 2: tickTime");
    check_fatal(&given("server.1=a:1\n"), "dynamic file, line 1: server.1");
}

#[test]
fn hierarchical_quorums_are_read() {
    let file = with(
        "initLimit=5\nsyncLimit=2\nserver.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\ngroup.1=1:2\ngroup.2=3\nweight.3=0",
    );
    let (config, _) = Given { file: &file, myid: Some("1"), ..Given::default() }.config();
    let groups = config.membership.groups.unwrap();
    assert_eq!(groups.group_of[&ServerId(2)], 1);
    assert_eq!((groups.weight_of[&ServerId(2)], groups.weight_of[&ServerId(3)]), (1, 0));
}

#[test]
fn autopurge_keeps_at_least_three() {
    let config = config("autopurge.snapRetainCount=1\nautopurge.purgeInterval=24");
    assert_eq!((config.autopurge_snap_retain_count, config.autopurge_purge_interval_hours), (3, Some(24)));
    assert!(warnings("autopurge.snapRetainCount=1", "").contains("3 is used"));
    check_fatal_lines("autopurge.purgeInterval=1h", "a whole number of hours");
}

#[test]
fn a_relative_directory_is_mentioned_unless_it_is_meant() {
    let said = |dir: &str| {
        let file = format!("dataDir={dir}\nclientPort=1");
        Given { file: &file, ..Given::default() }.config().1.len()
    };
    assert_eq!((said("data"), said("./data"), said("/data")), (1, 0, 0));
    assert_eq!(config("").data_log_dir, Path::new("/d"));
    assert_eq!(config("dataLogDir=/l").data_log_dir, Path::new("/l"));
}

#[test]
fn files_of_the_wrong_kind_in_separate_directories_are_an_error_of_their_own() {
    let check = |lines: &str, in_snap_dir: &[&str], in_log_dir: &[&str], expected: Option<&str>| {
        let error = config(lines).check_directories(in_snap_dir, in_log_dir).err();
        assert!(error.iter().all(|error| error.exit_code() == 3));
        let said = error.map(|error| error.to_string());
        assert!(said.as_deref().unwrap_or("").contains(expected.unwrap_or("")), "{said:?}");
        assert_eq!(said.is_some(), expected.is_some(), "{said:?}");
    };
    check("", &["log.1", "snapshot.0"], &["log.1", "snapshot.0"], None);
    check("dataLogDir=/l", &["snapshot.0", "currentEpoch"], &["log.1", "logs"], None);
    check("dataLogDir=/l", &["log.zz"], &[], Some("/d/version-2: holds log.zz; move all files of that kind to /l"));
    check("dataLogDir=/l", &[], &["snapshot.0"], Some("/l/version-2: holds snapshot.0"));
}

#[test]
fn words_that_are_allowed_follow_the_whitelist() {
    let allowed = |lines: &str, flags: &str, word: &str| config_of(lines, flags).allows_word(word);
    assert!(allowed("", "", "srvr"));
    assert!(!allowed("", "", "ruok"));
    assert!(allowed("4lw.commands.whitelist=mntr, ruok", "", "ruok"));
    assert!(!allowed("4lw.commands.whitelist=mntr, ruok", "", "stat"));
    assert!(allowed("4lw.commands.whitelist=mntr,*", "", "stat"));
    assert!(allowed("", "-Dzookeeper.4lw.commands.whitelist=*", "stat"));
    assert!(allowed("", "-Dreadonlymode.enabled=true", "isro"));
    assert!(!allowed("", "", "isro"));
}

#[test]
fn our_own_settings_are_strict() {
    let config = config_of(
        "oxkeeper.shards=3\noxkeeper.cores=0-2,5\noxkeeper.zabCore=shared\noxkeeper.pin=false\n",
        "-Doxkeeper.shards=9 -Doxkeeper.spinMicros=50 -Doxkeeper.logWritesInFlight=4",
    );
    assert_eq!((config.shards, config.spin_us, config.log_writes_in_flight), (3, 50, 4));
    assert_eq!((config.cores, config.pin), (Some(vec![0, 1, 2, 5]), Some(false)));
    for bad in ["oxkeeper.shards=x", "oxkeeper.cores=3-1", "oxkeeper.zabCore=own", "oxkeeper.pin=yes"] {
        check_fatal_lines(bad, bad);
    }
    assert!(warnings("oxkeeper.shard=1", "").contains("is oxkeeper.shards meant?"));
}

#[test]
fn defaults_are_javas() {
    let config = Config::default();
    assert_eq!((config.tick_time_ms, config.max_client_cnxns, config.snap_count), (3000, 60, 100_000));
    assert_eq!(config.pre_alloc_bytes, 64 << 20);
    assert_eq!(config.snap_size_limit_bytes, Some(4 << 30));
    assert_eq!((config.txn_log_size_limit_bytes, config.large_request_threshold_bytes), (None, None));
    assert_eq!((config.fsync_warning_threshold_ms, config.max_batch_size), (1000, 1000));
    assert_eq!((config.global_outstanding_limit, config.request_throttle_max_requests), (1000, 0));
    assert_eq!(config.nio_sessionless_cnxn_timeout_ms, 10_000);
    assert_eq!(config.autopurge_purge_interval_hours, None);
    assert!(config.force_sync && config.digest_enabled && config.close_session_txn_enabled);
    assert!(config.datadir_autocreate && config.db_autocreate && config.digest_auth_enabled);
    assert!(!config.extended_types_enabled && !config.skip_acl && !config.enforce_quota);
    assert!(config.leader_serves && config.standalone_enabled && config.sync_enabled);
    assert_eq!(config.four_letter_whitelist, FourLetterWhitelist::Only(Vec::new()));
    assert_eq!(config.snapshot_size_factor, Some(0.33));
    assert_eq!(config.mode(), Mode::Standalone);
}

#[test]
fn without_a_file_a_server_is_ready_to_use() {
    let (config, warnings) = Config::without_file(&SystemProperties::default()).unwrap();
    assert_eq!(config.client_port_address, Some(HostPort::wildcard(2181)));
    assert_eq!(config.data_dir, Path::new("./oxkeeper-data"));
    assert_eq!((config.min_session_timeout_ms, config.max_session_timeout_ms), (4000, 40_000));
    assert!(config.extended_types_enabled && config.allows_word("mntr"));
    assert_eq!((config.autopurge_snap_retain_count, config.autopurge_purge_interval_hours), (3, Some(1)));
    assert!(warnings.is_empty());
    let flags = SystemProperties::new(None, Some("-Dzookeeper.extendedTypesEnabled=false -Doxkeeper.shards=2"), &[]);
    let (config, _) = Config::without_file(&flags).unwrap();
    assert!(!config.extended_types_enabled);
    assert_eq!(config.shards, 2);
}

// S-100
#[test]
fn port_and_directory_start_a_single_server_as_java_does() {
    let arguments = Arguments::parse(&["-Dzookeeper.snapCount=9", "2181", "/d", "2000"]).unwrap();
    let flags = SystemProperties::new(None, None, &arguments.properties);
    let Start::Words(words) = arguments.start else { panic!("{arguments:?}") };
    let (config, _) = Config::from_words(&words, &flags).unwrap();
    assert_eq!(config.client_port_address, Some(HostPort::wildcard(2181)));
    assert_eq!((config.data_dir.as_path(), config.data_log_dir.as_path()), (Path::new("/d"), Path::new("/d")));
    assert_eq!((config.tick_time_ms, config.max_session_timeout_ms), (2000, 40_000));
    assert_eq!((config.max_client_cnxns, config.snap_count), (0, 9));
    assert!(!config.extended_types_enabled && !config.allows_word("mntr"));
    assert_eq!(config.mode(), Mode::Standalone);
    assert!(matches!(Arguments::parse(&["zoo.cfg"]).unwrap().start, Start::File(path) if path == "zoo.cfg"));
}

#[test]
fn files_as_packages_and_operators_write_them_are_accepted() {
    let debian = include_str!("config/debian.cfg");
    let (config, warnings) = Given { file: debian, ..Given::default() }.config();
    assert_eq!((config.tick_time_ms, warnings.len()), (2000, 0), "{warnings:?}");
    let kafka = "dataDir=/tmp/zookeeper\nclientPort=2181\nmaxClientCnxns=0\nadmin.enableServer=false\n";
    assert!(Given { file: kafka, ..Given::default() }.config().1.is_empty());
    let dynamic = "server.1=zk-0.zk:2888:3888:participant;2181\n";
    let pravega = include_str!("config/pravega.cfg");
    let given = Given { file: pravega, myid: Some("1"), dynamic: Some(dynamic), ..Given::default() };
    let (config, _) = given.config();
    assert_eq!(config.mode(), Mode::Distributed);
    assert!(config.skip_acl && config.allows_word("mntr"));
}

const KEYS: &[&str] = &[
    "clientPort",
    "tickTime",
    "server.1",
    "server.",
    "group.1",
    "weight.1",
    "groups",
    "version",
    "snapCount",
    "oxkeeper.cores",
    "preAllocSize",
    "jute.maxbuffer.extrasize",
    "connection_throttle_drop_increase",
    "dynamicConfigFile",
    "4lw.commands.whitelist",
    "enforce.auth.schemes",
    "minSessionTimeout",
    "clientPortAddress",
    "ünknown",
];

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        file in prop::collection::vec(any::<u8>(), 0..300),
        other in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        if let Ok(file) = ConfigFile::parse(&file) {
            let others = OtherFiles { myid: Some(&other), dynamic: Some(&other), next_dynamic: Some(&other) };
            let _ = Config::from_file(&file, &others, &SystemProperties::default());
        }
    }

    #[test]
    fn no_values_make_it_panic(key in prop::sample::select(KEYS), value in "[-0-9a-z:;|\\[\\]%.x, ü]{0,30}") {
        let text = format!("dataDir=/d\nserver.2=a:1:2\nserver.3=b:1:2\n{key}={value}\n");
        let given = Given { file: &text, myid: Some("1"), dynamic: Some(&value), flags: &value, next_dynamic: None };
        let _ = given.parse();
    }
}
