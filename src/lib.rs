pub mod tree;
pub mod types;
pub mod wire;
pub mod zab;
