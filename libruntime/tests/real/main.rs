//! The invariants with real containers. Most need root, and are ignored without `--include-ignored`; each needs
//! busybox, and says so where it is skipped. They take turns: what they watch (descriptors, children, mounts) is the process's.
//!
//! Where to look next: `bundle.rs` makes bundles, `world.rs` takes the picture before and after,
//! `roles.rs` are programs that a test starts because it has to kill them or trace them.

mod bundle;
mod caller;
mod confined;
mod errors;
mod examples;
mod handles;
mod leaks;
mod limits;
mod paths;
mod programs;
mod roles;
mod sealed;
mod seen;
mod times;
mod verbs;
mod waits;
mod world;
