//! See `quota` in `entry_points.rs`.

#![no_main]

#[path = "../entry_points.rs"]
mod entry_points;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| entry_points::election_stream(bytes));
