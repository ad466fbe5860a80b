//! The verbs, one file for each: its flags and help, and what it does.

pub mod check;
pub mod checkpoint;
pub mod completion;
pub mod create;
pub mod delete;
pub mod events;
pub mod exec;
pub mod explain;
pub mod features;
pub mod kill;
pub mod list;
pub mod mounts;
pub mod pause;
pub mod ps;
pub mod restore;
pub mod resume;
pub mod run;
pub mod spec;
pub mod start;
pub mod state;
pub mod update;

use crate::cli::Verb;

/// In the order in which the help shows them.
pub const VERBS: &[&Verb] = &[
    &create::VERB,
    &start::VERB,
    &run::VERB,
    &exec::VERB,
    &state::VERB,
    &kill::VERB,
    &delete::VERB,
    &list::VERB,
    &ps::VERB,
    &pause::VERB,
    &resume::VERB,
    &update::VERB,
    &mounts::VERB,
    &checkpoint::VERB,
    &restore::VERB,
    &events::VERB,
    &spec::VERB,
    &explain::VERB,
    &check::VERB,
    &features::VERB,
    &completion::VERB,
];
