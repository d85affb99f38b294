//! Real processes under load while servers are killed, stopped and frozen: what was acknowledged is there, on every server, and
//! whoever's server lives on keeps its connection. `STORM_ROUNDS` says how long, `STORM_SERVERS` how many.

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use support::client::Client;
use support::ensemble::{Ensemble, Shape};
use support::link::op;
use support::random::Random;

const OURS: &str = env!("CARGO_BIN_EXE_oxkeeper");

/// What a writer knows of what it wrote.
#[derive(Default)]
struct Book {
    acknowledged: BTreeSet<String>,
    /// The connection ended before the answer.
    unknown: BTreeSet<String>,
}

struct Writer {
    book: Arc<Mutex<Book>>,
    /// Its server is being hurt, so its connection may end.
    may_lose: Arc<AtomicBool>,
    writes: Arc<AtomicU64>,
    thread: thread::JoinHandle<()>,
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn write_on(at: usize, address: std::net::SocketAddr, stop: Arc<AtomicBool>) -> Writer {
    let (book, may_lose, writes) =
        (Arc::new(Mutex::new(Book::default())), Arc::new(AtomicBool::new(false)), Arc::<AtomicU64>::default());
    let (our_book, our_may_lose, our_writes) = (Arc::clone(&book), Arc::clone(&may_lose), Arc::clone(&writes));
    let thread = thread::spawn(move || {
        let mut count = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            let Ok(mut client) = Client::connect(address, 10_000) else {
                thread::sleep(Duration::from_millis(5));
                continue;
            };
            while !stop.load(Ordering::Relaxed) {
                let name = format!("w{at}-{count:08}");
                count += 1;
                let start = Instant::now();
                match client.create(&format!("/storm/{name}"), b"", 0) {
                    Ok(reply) if reply.err == 0 => {
                        our_book.lock().unwrap().acknowledged.insert(name);
                        our_writes.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(reply) => panic!("{name}: error {}", reply.err),
                    Err(ended) => {
                        our_book.lock().unwrap().unknown.insert(name.clone());
                        if !our_may_lose.load(Ordering::SeqCst) {
                            panic!("{name}: {ended:?} after {:?}, and server {} lives", start.elapsed(), at + 1);
                        }
                        break;
                    }
                }
            }
        }
    });
    Writer { book, may_lose, writes, thread }
}

/// Every writer gets something done.
fn progress(ensemble: &Ensemble, writers: &[Writer], except: Option<usize>) {
    let before: Vec<u64> = writers.iter().map(|writer| writer.writes.load(Ordering::Relaxed)).collect();
    ensemble.until("every writer goes on", |_| {
        writers.iter().enumerate().all(|(at, writer)| {
            assert!(!writer.thread.is_finished(), "a writer has given up\n{}", ensemble.words());
            Some(at) == except || writer.writes.load(Ordering::Relaxed) > before[at] + 3
        })
    });
}

#[test]
fn what_was_acknowledged_survives_whatever_happens_to_servers() {
    let servers = number("STORM_SERVERS", 3) as u16;
    let seed =
        number("STORM_SEED", SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64));
    println!("STORM_SEED={seed}");
    let mut random = Random::new(seed, 1);
    let mut ensemble = Ensemble::start(OURS, &Shape::of(servers));
    assert_eq!(ensemble.client(0).create("/storm", b"", 0).expect("an answer").err, 0);
    let stop = Arc::new(AtomicBool::new(false));
    let addresses: Vec<_> = ensemble.members.iter().map(|member| member.client).collect();
    let writers: Vec<Writer> =
        addresses.iter().enumerate().map(|(at, address)| write_on(at, *address, Arc::clone(&stop))).collect();
    progress(&ensemble, &writers, None);
    for round in 0..number("STORM_ROUNDS", 6) {
        let leader = ensemble.leader();
        let victim = if random.percent(60) { leader } else { random.below(usize::from(servers)) };
        writers[victim].may_lose.store(true, Ordering::SeqCst);
        let how = random.pick(&["kill", "kill", "stop", "freeze"]);
        let start = Instant::now();
        match how {
            "kill" => ensemble.kill(victim),
            "stop" => {
                ensemble.members[victim].signal("TERM");
                assert_eq!(ensemble.members[victim].wait().code(), Some(0), "{}", ensemble.words());
            }
            _ => ensemble.members[victim].signal("STOP"),
        }
        progress(&ensemble, &writers, Some(victim));
        let role = if victim == leader { "leader" } else { "follower" };
        println!("round {round}: {how} {role} {}: all write again after {:?}", victim + 1, start.elapsed());
        match how {
            "freeze" => {
                thread::sleep(Duration::from_millis(random.below(1500) as u64));
                ensemble.members[victim].signal("CONT");
            }
            _ => ensemble.start_one(victim),
        }
        ensemble.until_all_serve();
        progress(&ensemble, &writers, None);
        writers[victim].may_lose.store(false, Ordering::SeqCst);
    }
    stop.store(true, Ordering::SeqCst);
    let books: Vec<_> = writers
        .into_iter()
        .map(|writer| {
            writer.thread.join().expect("writers do not panic");
            writer.book
        })
        .collect();
    check(&ensemble, &books);
}

/// All servers show the same, everything that was acknowledged, and nothing that nobody wrote.
fn check(ensemble: &Ensemble, books: &[Arc<Mutex<Book>>]) {
    for at in 0..ensemble.members.len() {
        let mut client = ensemble.client(at);
        let mut body = Vec::new();
        oxkeeper::wire::jute::Write::put_string(&mut body, "/storm");
        assert_eq!(client.call(op::SYNC, &body).expect("an answer").err, 0);
        let shown: BTreeSet<String> =
            client.read(op::GET_CHILDREN, "/storm", false).expect("an answer").names().into_iter().collect();
        let mut known = BTreeSet::new();
        for book in books {
            let book = book.lock().unwrap();
            let lost: Vec<_> = book.acknowledged.difference(&shown).collect();
            assert!(lost.is_empty(), "server {} has lost {lost:?}\n{}", at + 1, ensemble.words());
            known.extend(book.acknowledged.iter().cloned());
            known.extend(book.unknown.iter().cloned());
        }
        let strange: Vec<_> = shown.difference(&known).collect();
        assert!(strange.is_empty(), "nobody wrote {strange:?}");
        println!("server {}: {} znodes, all accounted for", at + 1, shown.len());
    }
}
