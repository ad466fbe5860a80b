//! What containerd and a shim say to each other. The shim is the program; this is shared with those that play containerd,
//! which are its tests and the measurements of `benches`.

pub mod client;
pub mod wire;
