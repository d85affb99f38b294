use super::*;
use crate::config::{Member, Membership};
use crate::wire::election::Address;
use proptest::prelude::*;

fn ensemble(servers: i64) -> Ensemble {
    let line = |id: i64| Member::parse(ServerId(id), &format!("10.0.0.{id}:2888:3888"), false).expect("a server line");
    let members = (1..=servers).map(|id| (ServerId(id), line(id))).collect();
    Ensemble::new(Membership { members, ..Membership::default() }).expect("somebody votes")
}

/// One server's links in an ensemble of three, and a clock in milliseconds.
struct Links {
    machine: ElectionLinks,
    now_ms: u64,
}

impl Links {
    fn of(me: i64) -> Links {
        let settings =
            Settings { me: ServerId(me), has_many_addresses: false, connect_limit: Duration::from_millis(5000) };
        Links { machine: ElectionLinks::new(settings, &ensemble(3)), now_ms: 10_000 }
    }

    fn step(&mut self, input: Input<'_>) -> Vec<String> {
        let mut out = Vec::new();
        self.machine.step(Time::from_ms(self.now_ms), input, &mut out);
        out.iter().map(describe).collect()
    }

    fn send(&mut self, to: i64, payload: &str) -> Vec<String> {
        self.step(Input::Send { to: ServerId(to), payload: payload.into() })
    }

    fn accepted(&mut self, socket: u64) -> Vec<String> {
        self.step(Input::Socket(SocketInput::Accepted { socket: SocketId(socket), port: Port::Election }))
    }

    fn connected(&mut self, socket: u64) -> Vec<String> {
        self.step(Input::Socket(SocketInput::Connected { socket: SocketId(socket) }))
    }

    fn received(&mut self, socket: u64, bytes: &[u8]) -> Vec<String> {
        self.step(Input::Socket(SocketInput::Received { socket: SocketId(socket), bytes }))
    }

    fn closed(&mut self, socket: u64, is_refused: bool) -> Vec<String> {
        self.step(Input::Socket(SocketInput::Closed { socket: SocketId(socket), is_refused }))
    }

    /// The clock goes to the next deadline, if it is due within `ms`, else by `ms`.
    fn wait(&mut self, ms: u64) -> Vec<String> {
        let until = self.now_ms + ms;
        match self.machine.deadline().map(Time::as_ms) {
            Some(deadline) if deadline <= until => {
                self.now_ms = deadline.max(self.now_ms);
                self.step(Input::Timeout)
            }
            _ => {
                self.now_ms = until;
                Vec::new()
            }
        }
    }
}

/// `initial 2+frame abc`: messages by what they carry.
fn describe(output: &Output) -> String {
    match output {
        Output::Socket(SocketOutput::Connect { socket, addresses }) => {
            let addresses: Vec<_> = addresses.iter().map(HostPort::to_string).collect();
            format!("connect {} {}", socket.0, addresses.join(","))
        }
        Output::Socket(SocketOutput::Send { socket, bytes }) => {
            let mut parts = Vec::new();
            let mut rest = bytes.as_slice();
            if let [0xff, ..] = rest
                && let Ok(Some((message, taken))) = InitialMessage::decode(rest)
            {
                parts.push(format!("initial {} {}", message.sid, message.addresses[0]));
                rest = &rest[taken..];
            }
            while let Ok(Some((payload, behind))) = split_frame(rest) {
                parts.push(format!("frame {}", String::from_utf8_lossy(payload).chars().take(8).collect::<String>()));
                rest = behind;
            }
            format!("send {} {}", socket.0, parts.join("+"))
        }
        Output::Socket(SocketOutput::Close { socket, is_abrupt: false }) => format!("close {}", socket.0),
        Output::Socket(SocketOutput::Close { socket, is_abrupt: true }) => format!("abort {}", socket.0),
        Output::Socket(SocketOutput::Hold { socket, .. }) => panic!("an election link is never held: {socket:?}"),
        Output::Received { from, payload } => format!("received {from} {}", String::from_utf8_lossy(payload)),
        Output::Up { peer } => format!("up {peer}"),
        Output::Down { peer, is_refused: false } => format!("down {peer}"),
        Output::Down { peer, is_refused: true } => format!("refused {peer}"),
    }
}

fn initial(sid: i64, host: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    InitialMessage::encode(ServerId(sid), &[Address { host: host.into(), port: 3888 }], false, &mut bytes);
    bytes
}

fn frame(payload: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_frame(payload.as_bytes(), &mut bytes);
    bytes
}

const NOTHING: [&str; 0] = [];

//
#[test]
fn the_higher_sid_keeps_the_link_that_it_made() {
    let mut two = Links::of(2);
    assert_eq!(two.send(1, "a"), ["connect 4 10.0.0.1:3888"]);
    assert_eq!(two.send(1, "b"), NOTHING);
    assert_eq!(two.connected(4), ["up 1", "send 4 initial 2 10.0.0.2:3888+frame b"]);
    assert_eq!(two.received(4, &[frame("x"), frame("y")].concat()), ["received 1 x", "received 1 y"]);
    assert_eq!(two.send(1, "c"), ["send 4 frame c"]);
    assert!(two.machine.owns(SocketId(4)) && !two.machine.owns(SocketId(8)));
}

//
#[test]
fn the_lower_sid_asks_to_be_connected_to() {
    let mut two = Links::of(2);
    assert_eq!(two.send(3, "a"), ["connect 4 10.0.0.3:3888"]);
    assert_eq!(two.connected(4), ["send 4 initial 2 10.0.0.2:3888", "close 4"]);
    assert_eq!(two.accepted(7), NOTHING);
    let hello = initial(3, "10.0.0.3");
    assert_eq!(two.received(7, &hello[..9]), NOTHING);
    let rest = [&hello[9..], &frame("x")].concat();
    assert_eq!(two.received(7, &rest), ["up 3", "send 7 frame a", "received 3 x"]);
}

//
#[test]
fn a_lower_sid_is_connected_to_where_it_says() {
    let mut two = Links::of(2);
    two.accepted(7);
    assert_eq!(two.received(7, &initial(1, "other")), ["close 7", "connect 4 other:3888"]);
    assert_eq!(two.connected(4), ["up 1", "send 4 initial 2 10.0.0.2:3888"]);
    // It has lost the link, although we have not: it is made anew.
    two.now_ms += 500;
    two.accepted(9);
    let expected = ["close 9", "abort 4", "down 1", "connect 8 10.0.0.1:3888"];
    assert_eq!(two.received(9, &initial(1, "0.0.0.0")), expected);
}

//
#[test]
fn requests_that_follow_closely_change_nothing() {
    let mut two = Links::of(2);
    two.send(1, "a");
    two.accepted(7);
    assert_eq!(two.received(7, &initial(1, "10.0.0.1")), ["close 7"]);
    two.connected(4);
    two.accepted(9);
    assert_eq!(two.received(9, &initial(1, "10.0.0.1")), ["close 9"]);
    // An attempt that hangs is given up for who is there to be connected to.
    let mut two = Links::of(2);
    two.send(1, "a");
    two.now_ms += 300;
    two.accepted(7);
    assert_eq!(two.received(7, &initial(1, "new")), ["close 7", "abort 4", "connect 8 new:3888"]);
}

//
#[test]
fn a_new_link_of_a_higher_sid_replaces_the_old_one() {
    let mut two = Links::of(2);
    two.send(3, "a");
    two.accepted(7);
    assert_eq!(two.received(7, &initial(3, "x")), ["abort 4", "up 3", "send 7 frame a"]);
    two.accepted(9);
    assert_eq!(two.received(9, &initial(3, "x")), ["abort 7", "up 3", "send 9 frame a"]);
    assert_eq!(two.received(7, &frame("late")), NOTHING);
    assert_eq!(two.closed(7, false), NOTHING);
    assert_eq!(two.received(9, &frame("x")), ["received 3 x"]);
}

//
#[test]
fn strangers_and_doubles_are_turned_away() {
    let check = |bytes: &[u8]| {
        let mut two = Links::of(2);
        two.accepted(7);
        assert_eq!(two.received(7, bytes), ["abort 7"], "{bytes:?}");
        assert!(!two.machine.owns(SocketId(7)));
        assert_eq!(two.machine.deadline(), None);
    };
    check(&initial(2, "10.0.0.2"));
    check(&initial(4, "10.0.0.4"));
    check(&initial(i64::MAX, "10.0.0.4"));
    check(&initial(i64::MIN, "10.0.0.4"));
    check(&[0, 0, 0, 0, 0, 0, 0, 9]);
    check(&(-1_i64).to_be_bytes());
}

//
#[test]
fn who_says_nothing_is_closed_after_a_second() {
    let mut two = Links::of(2);
    two.accepted(7);
    assert_eq!(two.machine.deadline(), Some(Time::from_ms(11_000)));
    assert_eq!(two.wait(2000), ["abort 7"]);
    assert_eq!(two.machine.deadline(), None);
}

//
#[test]
fn a_flood_of_silent_connections_closes_its_own_oldest() {
    let mut two = Links::of(2);
    let flood = limits::ELECTION_GREETINGS_MAX as u64;
    for i in 0..flood {
        assert_eq!(two.accepted(2 * i + 1), NOTHING);
        two.now_ms += 1;
    }
    for i in 0..100 {
        assert_eq!(two.accepted(2 * (flood + i) + 1), [format!("abort {}", 2 * i + 1)]);
        two.now_ms += 1;
    }
    two.accepted(100_001);
    assert_eq!(two.received(100_001, &initial(3, "10.0.0.3")), ["up 3"]);
}

//
#[test]
fn a_bad_frame_closes_its_link_only() {
    let mut two = Links::of(2);
    two.accepted(7);
    two.received(7, &initial(3, "10.0.0.3"));
    two.send(1, "a");
    two.connected(4);
    two.now_ms += 5000;
    let bad = [frame("x"), vec![0, 8, 0, 1]].concat();
    // It was kept up, so it is wanted again.
    let expected = ["received 3 x", "abort 7", "down 3", "connect 8 10.0.0.3:3888"];
    assert_eq!(two.received(7, &bad), expected);
    assert_eq!(two.received(4, &frame("y")), ["received 1 y"]);
}

//
#[test]
fn only_the_newest_unsent_notification_is_kept() {
    let mut two = Links::of(2);
    two.send(1, "a");
    two.connected(4);
    let large = "x".repeat(limits::ELECTION_UNSENT_BYTES);
    assert_eq!(two.send(1, &large), ["send 4 frame xxxxxxxx"]);
    assert_eq!(two.send(1, "b"), NOTHING);
    assert_eq!(two.send(1, "c"), NOTHING);
    let unsent = |bytes| Input::Socket(SocketInput::Unsent { socket: SocketId(4), bytes });
    assert_eq!(two.step(unsent(limits::ELECTION_UNSENT_BYTES)), NOTHING);
    assert_eq!(two.step(unsent(100)), ["send 4 frame c"]);
    assert_eq!(two.step(unsent(0)), NOTHING);
}

//
#[test]
fn the_last_notification_is_sent_again_on_a_fresh_link() {
    let mut two = Links::of(2);
    two.accepted(7);
    two.received(7, &initial(3, "10.0.0.3"));
    assert_eq!(two.send(3, "a"), ["send 7 frame a"]);
    two.accepted(9);
    assert_eq!(two.received(9, &initial(3, "10.0.0.3")), ["abort 7", "up 3", "send 9 frame a"]);
    assert_eq!(two.step(Input::Forget), NOTHING);
    two.accepted(11);
    assert_eq!(two.received(11, &initial(3, "10.0.0.3")), ["abort 9", "up 3"]);
}

#[test]
fn a_refused_attempt_is_told_once_and_repeated_ever_more_slowly() {
    let mut two = Links::of(2);
    two.send(1, "a");
    assert_eq!(two.closed(4, true), ["refused 1"]);
    let mut waits = Vec::new();
    for socket in (8..).step_by(4).take(8) {
        let before = two.now_ms;
        assert_eq!(two.wait(5000), [format!("connect {socket} 10.0.0.1:3888")]);
        waits.push(two.now_ms - before);
        assert_eq!(two.closed(socket, true), NOTHING);
    }
    assert_eq!(waits, [20, 40, 80, 160, 320, 640, 640, 640]);
    // It is back, and says so.
    two.accepted(7);
    assert_eq!(two.received(7, &initial(1, "10.0.0.1")), ["close 7", "down 1", "connect 40 10.0.0.1:3888"]);
    assert_eq!(two.connected(40), ["up 1", "send 40 initial 2 10.0.0.2:3888+frame a"]);
}

//
#[test]
fn an_attempt_that_hangs_ends_in_time_and_the_next_one_begins_at_once() {
    let mut two = Links::of(2);
    two.send(1, "a");
    let mut waits = Vec::new();
    for socket in (8..).step_by(4).take(6) {
        let before = two.now_ms;
        assert_eq!(two.wait(9000), [format!("abort {}", socket - 4), format!("connect {socket} 10.0.0.1:3888")]);
        waits.push(two.now_ms - before);
    }
    assert_eq!(waits, [800, 1600, 3200, 5000, 800, 1600]);
}

#[test]
fn a_link_that_held_is_made_anew_at_once_and_a_refusal_is_the_proof_of_death() {
    let mut two = Links::of(2);
    two.send(1, "a");
    two.connected(4);
    two.now_ms += 5000;
    assert_eq!(two.closed(4, true), ["down 1", "connect 8 10.0.0.1:3888"]);
    assert_eq!(two.closed(8, true), ["refused 1"]);
    let mut two = Links::of(2);
    two.send(3, "a");
    two.connected(4);
    assert_eq!(two.closed(4, false), NOTHING);
    assert_eq!(two.wait(5000), ["connect 8 10.0.0.3:3888"]);
    assert_eq!(two.now_ms, 10_200);
}

/// Design: elections are rate-limited under flapping links.
#[test]
fn a_link_that_flaps_is_made_anew_at_most_twice_a_second() {
    let connects = |out: Vec<String>| {
        out.into_iter().find_map(|line| line.strip_prefix("connect ")?.split(' ').next()?.parse().ok())
    };
    let mut two = Links::of(2);
    let mut socket: Option<u64> = connects(two.send(1, "a"));
    let mut count = 0;
    while two.now_ms < 70_000 {
        match socket {
            Some(connecting) => {
                count += 1;
                two.connected(connecting);
                two.now_ms += 1;
                socket = connects(two.closed(connecting, false));
            }
            None => socket = connects(two.wait(1000)),
        }
    }
    assert!((60..=120).contains(&count), "{count} in a minute");
}

#[test]
fn a_peer_that_asks_all_the_time_is_connected_to_five_times_a_second() {
    let mut two = Links::of(2);
    let mut count = 0;
    for i in 0..10_000 {
        let socket = 2 * i + 1;
        two.accepted(socket);
        let out = two.received(socket, &initial(1, "10.0.0.1"));
        count += out.iter().filter(|line| line.starts_with("connect")).count();
        two.now_ms += 1;
    }
    assert!((45..=50).contains(&count), "{count} in ten seconds");
}

#[test]
fn members_that_leave_are_forgotten_and_new_ones_known() {
    let mut two = Links::of(2);
    two.accepted(7);
    two.received(7, &initial(3, "10.0.0.3"));
    let mut out = Vec::new();
    two.machine.reconfigure(Time::from_ms(two.now_ms), &ensemble(2), &mut out);
    assert_eq!(out.iter().map(describe).collect::<Vec<_>>(), ["abort 7", "down 3"]);
    assert_eq!(two.send(3, "a"), NOTHING);
    two.machine.reconfigure(Time::from_ms(two.now_ms), &ensemble(4), &mut out);
    assert_eq!(two.send(4, "a"), ["connect 4 10.0.0.4:3888"]);
}

proptest! {
    #[test]
    fn bytes_may_come_in_any_pieces(
        payloads in prop::collection::vec("[a-z]{1,40}", 0..8),
        cuts in prop::collection::vec(1_usize..50, 1..100),
    ) {
        let mut stream = initial(3, "10.0.0.3");
        payloads.iter().for_each(|payload| stream.extend(frame(payload)));
        let mut two = Links::of(2);
        two.accepted(7);
        let mut out = Vec::new();
        let mut rest = stream.as_slice();
        for cut in cuts.iter().cycle() {
            let (piece, behind) = rest.split_at((*cut).min(rest.len()));
            out.extend(two.received(7, piece));
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        let expected: Vec<String> = payloads.iter().map(|payload| format!("received 3 {payload}")).collect();
        prop_assert_eq!(&out[0], "up 3");
        prop_assert_eq!(&out[1..], expected);
    }

    #[test]
    fn no_bytes_make_it_panic(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..6)) {
        let mut two = Links::of(2);
        for (i, piece) in pieces.iter().enumerate() {
            let socket = 2 * (i as u64 / 2) + 1;
            if i % 2 == 0 {
                two.accepted(socket);
            }
            two.received(socket, piece);
        }
        two.accepted(99);
        two.received(99, &initial(3, "10.0.0.3"));
        for piece in &pieces {
            two.received(99, piece);
        }
    }
}
