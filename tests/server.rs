//! The real binary over real sockets: what shows only byte by byte, in time, or when a process ends.
//! Rows C-… are those of the client protocol's checklist, S-… those of storage and operations.

mod support;

mod server {
    pub mod framing;
    pub mod lifecycle;
    pub mod limits;
    pub mod sessions;
    pub mod setup;
    pub mod shards;
}
