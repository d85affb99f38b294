//! How an operator sees a server: a `Status` in, text out.
//! Never: sockets, clocks, counting (that is `shard::stats` and `server::stats`), or a change of anything: it returns `Command`s.
//! Owner: whichever core holds the connection that asked.
//! Start at `opening.rs`, then `four_letter.rs`.

pub mod date;
pub mod four_letter;
pub mod http_hint;
pub mod lists;
pub mod metrics;
pub mod opening;
