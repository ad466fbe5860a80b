//! All cases, group by group: one file for one subject. A case must not depend on another one, nor on
//! the wording of an error unless engines do. ../case.rs has the form of a case, ../test.rs its tools.

mod attributes;
mod bad_input;
mod cgroups;
mod cli;
mod exec;
mod extras;
mod faults;
mod faults_limits;
mod hooks;
mod idmap;
mod lifecycle;
mod limits;
mod linux;
mod mount_options;
mod mount_paths;
mod mounts;
mod namespaces;
mod networks;
mod networks_bad;
mod networks_rootless;
mod process;
mod repetition;
mod rootless;
mod seccomp;
mod security;
mod security_dev;
mod systemd;
mod terminal;

use crate::case::Case;

pub fn all() -> Vec<Case> {
    [
        attributes::CASES,
        bad_input::CASES,
        cgroups::CASES,
        cli::CASES,
        exec::CASES,
        extras::CASES,
        faults::CASES,
        faults_limits::CASES,
        hooks::CASES,
        idmap::CASES,
        lifecycle::CASES,
        limits::CASES,
        linux::CASES,
        mount_options::CASES,
        mount_paths::CASES,
        mounts::CASES,
        namespaces::CASES,
        networks::CASES,
        networks_bad::CASES,
        networks_rootless::CASES,
        process::CASES,
        repetition::CASES,
        rootless::CASES,
        seccomp::CASES,
        security::CASES,
        security_dev::CASES,
        systemd::CASES,
        terminal::CASES,
    ]
    .concat()
}
