//! Podman of a user with subordinate ids, both made for the cases by root.

use super::engine_everyday::everyday;
use crate::case::Need::{Program, Root};
use crate::case::{Case, case};

everyday!(EVERYDAY, [Root, Program("podman"), Program("newuidmap"), Program("setpriv")]);
pub const CASES: &[Case] = EVERYDAY;
