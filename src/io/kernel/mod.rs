//! What needs `unsafe`: the io_uring queues, memory that the kernel reads and writes, and calls that std lacks.
//! Never: an interface that could be misused without `unsafe` on the caller's side, or knowledge of connections.
//! Owner: the core thread whose ring it is.
//! Start at `uring.rs`.

#![allow(unsafe_code)]

pub mod calls;
pub mod memory;
pub mod readable;
pub mod uring;
