//! Podman of a user with subordinate ids, both made for the cases by root.

use super::engine_everyday::everyday;
use super::engine_podman;
use crate::bundle;
use crate::case::Need::{Program, Root};
use crate::case::{Case, Outcome, case, same};
use crate::engine_start::{SUBORDINATE, USER};
use crate::test::Test;
use nix::unistd::{Gid, Uid, chown};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

everyday!(EVERYDAY, [Root, Program("podman"), Program("newuidmap"), Program("setpriv")]);
pub const CASES: &[&[Case]] = &[EVERYDAY, OWN];

const OWN: &[Case] = &[
    case!(root_inside_is_the_user_outside, [Root, Program("podman"), Program("newuidmap")], 120),
    case!(ids_inside_are_subordinate, [Root, Program("podman"), Program("newuidmap")], 120),
    case!(keep_id_is_the_user, [Root, Program("podman"), Program("newuidmap")], 120),
    case!(a_volume_of_the_user_is_written, [Root, Program("podman"), Program("newuidmap")], 120),
    case!(privileged_is_no_root_of_the_host, [Root, Program("podman"), Program("newuidmap")], 120),
    case!(a_pod_shares_its_namespaces, [Root, Program("podman"), Program("newuidmap")], 120),
    case!(a_healthcheck_is_run, [Root, Program("podman"), Program("newuidmap")], 120),
    case!(a_secret_is_a_file, [Root, Program("podman"), Program("newuidmap")], 120),
    case!(descriptors_are_preserved, [Root, Program("podman"), Program("newuidmap")], 120),
];

/// Whose process it is on the host.
fn owner(t: &Test, options: &[&str]) -> Outcome<u32> {
    let engine = t.engine()?;
    engine.sleeper("one", options)?;
    let owner = fs::metadata(format!("/proc/{}", engine.pid("one")?))?.uid();
    engine.remove("one")?;
    Ok(owner)
}

fn root_inside_is_the_user_outside(t: &Test) -> Outcome {
    same("owner", owner(t, &[])?, USER)
}

fn ids_inside_are_subordinate(t: &Test) -> Outcome {
    same("owner", owner(t, &["--user", "1000"])?, SUBORDINATE + 999)
}

fn keep_id_is_the_user(t: &Test) -> Outcome {
    let inside = t.engine()?.script(&["--userns", "keep-id"], "id -u")?;
    same("id inside", inside, USER.to_string())?;
    same("owner", owner(t, &["--userns", "keep-id"])?, USER)
}

fn a_volume_of_the_user_is_written(t: &Test) -> Outcome {
    let engine = t.engine()?;
    let dir = engine.dir.join("volume");
    bundle::make_dir(&dir)?;
    chown(&dir, Some(Uid::from_raw(USER)), Some(Gid::from_raw(USER)))?;
    let volume = format!("{}:/data", dir.display());
    engine.script(
        &["-v", &volume],
        "echo root > /data/root; chown 1000:1000 /data/root; echo own > /data/own",
    )?;
    let owner = |name: &str| fs::metadata(dir.join(name)).map(|meta| meta.uid());
    same("owner of what root made", owner("own")?, USER)?;
    same("owner of what was given away", owner("root")?, SUBORDINATE + 999)
}

/// All capabilities, over the user's namespace alone.
fn privileged_is_no_root_of_the_host(t: &Test) -> Outcome {
    let file = t.canary().join("file");
    let others = fs::metadata(&file)?.permissions();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    let volume = format!("{}:/mnt", t.canary().display());
    let script = "! cat /mnt/file 2> /dev/null && ! mknod /made c 1 11 2> /dev/null && echo right";
    let output = t.engine()?.script(&["--privileged", "-v", &volume], script)?;
    fs::set_permissions(&file, others)?;
    same("output", output.as_str(), "right")
}

fn a_pod_shares_its_namespaces(t: &Test) -> Outcome {
    engine_podman::a_pod_shares_its_namespaces(t)
}

fn a_healthcheck_is_run(t: &Test) -> Outcome {
    engine_podman::a_healthcheck_is_run(t)
}

fn a_secret_is_a_file(t: &Test) -> Outcome {
    engine_podman::a_secret_is_a_file(t)
}

fn descriptors_are_preserved(t: &Test) -> Outcome {
    engine_podman::descriptors_are_preserved(t)
}
