//! All cases, group by group: one file for one subject. A case must not depend on another one, nor on
//! the wording of an error unless engines do. ../case.rs has the form of a case, ../test.rs its tools.

mod attributes;
mod lifecycle;
mod mount_options;
mod mounts;
mod process;
mod terminal;

use crate::case::Case;

pub fn all() -> Vec<Case> {
    [
        attributes::CASES,
        lifecycle::CASES,
        mount_options::CASES,
        mounts::CASES,
        process::CASES,
        terminal::CASES,
    ]
    .concat()
}
