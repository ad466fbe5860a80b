//! All cases, group by group: one file for one subject. A case must not depend on another one, nor on
//! the wording of an error unless engines do. ../case.rs has the form of a case, ../test.rs its tools.

mod attributes;
mod bad_input;
mod cgroups;
mod checkpoint;
mod cli;
mod engine_buildah;
mod engine_checkpoint;
mod engine_cri;
mod engine_ctr;
mod engine_docker;
mod engine_everyday;
mod engine_limits;
mod engine_networks;
mod engine_podman;
mod engine_rootless;
mod engine_sandbox;
mod escapes;
mod escapes_dev;
mod escapes_input;
mod escapes_privileges;
mod escapes_procfs;
mod escapes_races;
mod everyday;
mod exec;
mod extras;
mod faults;
mod faults_kills;
mod faults_limits;
mod faults_stays;
mod faults_waits;
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
mod peers;
mod process;
mod repetition;
mod rootless;
mod seccomp;
mod streams;
mod systemd;
mod terminal;
mod trace;
mod waits;

use crate::case::Case;

pub fn all() -> Vec<Case> {
    [
        attributes::CASES,
        bad_input::CASES,
        cgroups::CASES,
        checkpoint::CASES,
        cli::CASES,
        engine_buildah::CASES,
        engine_cri::CASES,
        engine_ctr::CASES,
        &engine_docker::CASES.concat(),
        engine_networks::CASES,
        &engine_podman::CASES.concat(),
        &engine_rootless::CASES.concat(),
        engine_sandbox::CASES,
        escapes::CASES,
        escapes_dev::CASES,
        escapes_input::CASES,
        escapes_privileges::CASES,
        escapes_procfs::CASES,
        escapes_races::CASES,
        everyday::CASES,
        exec::CASES,
        extras::CASES,
        faults::CASES,
        faults_kills::CASES,
        faults_limits::CASES,
        faults_stays::CASES,
        faults_waits::CASES,
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
        peers::CASES,
        process::CASES,
        repetition::CASES,
        rootless::CASES,
        seccomp::CASES,
        streams::CASES,
        systemd::CASES,
        terminal::CASES,
        trace::CASES,
        waits::CASES,
    ]
    .concat()
}
