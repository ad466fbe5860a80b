//! Mounts with id maps: `idmap` and `ridmap` with the maps of the mount or those of the container's
//! user namespace. Other mounts are in mounts.rs, user namespaces themselves in namespaces.rs.

use crate::case::Need::{Kernel, Root};
use crate::case::{Case, Outcome, case, check, same};
use crate::test::{Mounted, Test, mount_line};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

pub const CASES: &[Case] = &[
    case!(idmap_shows_other_owners, [Root, Kernel(5, 12)]),
    case!(idmap_gives_new_files_the_mapped_owner, [Root, Kernel(5, 12)]),
    case!(idmap_with_several_lines, [Root, Kernel(5, 12)]),
    case!(idmap_keeps_the_options, [Root, Kernel(5, 12)]),
    case!(idmap_leaves_submounts_as_they_are, [Root, Kernel(5, 12)]),
    // The submount is a tmpfs, which can be mapped since then.
    case!(ridmap_maps_submounts_too, [Root, Kernel(6, 3)]),
    case!(idmap_in_a_user_namespace, [Root, Kernel(5, 12)]),
    case!(idmap_keeps_the_propagation, [Root, Kernel(5, 12)]),
    case!(idmap_on_a_tmpfs_is_refused_or_works, [Kernel(5, 12)]),
    case!(maps_without_the_option_apply_or_are_refused, [Root, Kernel(5, 12)]),
    case!(a_broken_map_is_refused, [Root, Kernel(5, 12)]),
];

fn map(inside: u32, host: u32, size: u32) -> Value {
    json!({ "containerID": inside, "hostID": host, "size": size })
}

/// A volume with a file of uid 1234 and gid 5678.
fn volume(t: &Test) -> Outcome<PathBuf> {
    let volume = t.folder("volume")?;
    let file = volume.join("file");
    fs::write(&file, "content")?;
    std::os::unix::fs::chown(&file, Some(1234), Some(5678))?;
    Ok(volume)
}

fn mapped(source: &std::path::Path, options: Value, uids: Value, gids: Value) -> Value {
    json!({
        "destination": "/data", "type": "bind", "source": source, "options": options,
        "uidMappings": uids, "gidMappings": gids
    })
}

fn owner(t: &Test, mount: Value, path: &str) -> Outcome<(Option<i64>, Option<i64>)> {
    let mut config = t.config();
    config.push("mounts", mount);
    let stat = t.probe(&config, &["--stat", path])?["stat"][path].clone();
    Ok((stat["uid"].as_i64(), stat["gid"].as_i64()))
}

fn idmap_shows_other_owners(t: &Test) -> Outcome {
    // Of a mount's map the container's id is the one on disk and the host's the one that is seen.
    let mount =
        mapped(&volume(t)?, json!(["bind", "idmap"]), json!([map(1234, 7, 1)]), json!([map(5678, 8, 1)]));
    same("owner", owner(t, mount, "/data/file")?, (Some(7), Some(8)))
}

fn idmap_gives_new_files_the_mapped_owner(t: &Test) -> Outcome {
    let volume = volume(t)?;
    fs::set_permissions(&volume, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    let mut config = t.shell("echo x > /data/new");
    config.set("process.user", json!({ "uid": 7, "gid": 8 }));
    let lines = (json!([map(0, 0, 1), map(1234, 7, 1)]), json!([map(0, 0, 1), map(5678, 8, 1)]));
    config.push("mounts", mapped(&volume, json!(["bind", "idmap"]), lines.0, lines.1));
    t.run(&config)?.ok()?;
    let meta = fs::metadata(volume.join("new"))?;
    use std::os::unix::fs::MetadataExt;
    same("owner on disk", (meta.uid(), meta.gid()), (1234, 5678))
}

fn idmap_with_several_lines(t: &Test) -> Outcome {
    let lines = json!([map(0, 100, 1), map(1234, 55, 2), map(5678, 66, 1)]);
    let mount = mapped(&volume(t)?, json!(["rbind", "idmap"]), lines.clone(), lines);
    same("owner", owner(t, mount, "/data/file")?, (Some(55), Some(66)))
}

fn idmap_keeps_the_options(t: &Test) -> Outcome {
    let all = (json!([map(0, 0, 65536)]), json!([map(0, 0, 65536)]));
    let mut config = t.config();
    config.push(
        "mounts",
        mapped(&volume(t)?, json!(["bind", "idmap", "ro", "nosuid", "noexec"]), all.0, all.1),
    );
    let options = crate::test::mount_options(&t.probe(&config, &[])?, "/data")?;
    for option in ["ro", "nosuid", "noexec"] {
        check!(options.iter().any(|have| have == option), "no {option} in {options:?}");
    }
    Ok(())
}

/// The owner of a file on a mount below the volume, with the option.
fn below(t: &Test, option: &str) -> Outcome<(Option<i64>, Option<i64>)> {
    let volume = volume(t)?;
    let _mounted = Mounted::tmpfs(&volume.join("sub"))?;
    fs::write(volume.join("sub/file"), "")?;
    std::os::unix::fs::chown(volume.join("sub/file"), Some(1234), Some(5678))?;
    let mount = mapped(&volume, json!(["rbind", option]), json!([map(1234, 7, 1)]), json!([map(5678, 8, 1)]));
    owner(t, mount, "/data/sub/file")
}

fn idmap_leaves_submounts_as_they_are(t: &Test) -> Outcome {
    same("owner", below(t, "idmap")?, (Some(1234), Some(5678)))
}

fn ridmap_maps_submounts_too(t: &Test) -> Outcome {
    same("owner", below(t, "ridmap")?, (Some(7), Some(8)))
}

fn idmap_in_a_user_namespace(t: &Test) -> Outcome {
    // As Kubernetes does it: files of root on disk are root's in the container.
    let volume = t.folder("volume")?;
    fs::write(volume.join("file"), "content")?;
    let mut config = t.config();
    config.user_namespace(100_000, 65_536);
    let lines = json!([map(0, 100_000, 65_536)]);
    config.push("mounts", mapped(&volume, json!(["bind", "idmap"]), lines.clone(), lines));
    config.args(&["/probe", "report", "--stat", "/data/file", "--write", "/data"]);
    let c = t.container(&config)?;
    fs::create_dir(c.path("/data"))?;
    let probe = c.run()?.ok()?.json()?;
    same("owner", probe["stat"]["/data/file"]["uid"].as_i64(), Some(0))?;
    same("writing", probe["write"]["/data"].as_str(), Some("ok"))
}

fn idmap_keeps_the_propagation(t: &Test) -> Outcome {
    let volume = volume(t)?;
    let lines = json!([map(0, 100_000, 65_536)]);
    for in_user_namespace in [false, true] {
        for (option, wanted) in [("shared", "shared:"), ("rshared", "shared:"), ("unbindable", "unbindable")]
        {
            let mut config = t.config();
            if in_user_namespace {
                config.user_namespace(100_000, 65_536);
            }
            let options = json!(["bind", "idmap", option]);
            config.push("mounts", mapped(&volume, options, lines.clone(), lines.clone()));
            config.args(&["/probe", "report"]);
            let c = t.container(&config)?;
            fs::create_dir(c.path("/data"))?;
            let line = mount_line(&c.run()?.ok()?.json()?, "/data")?;
            check!(line.contains(wanted), "{option}, user namespace {in_user_namespace}: {line}");
        }
    }
    Ok(())
}

fn idmap_on_a_tmpfs_is_refused_or_works(t: &Test) -> Outcome {
    let mut config = t.config();
    let lines = json!([map(0, 7, 1)]);
    config.push(
        "mounts",
        json!({ "destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["idmap"],
            "uidMappings": lines.clone(), "gidMappings": lines }),
    );
    config.args(&["/bin/grep", "/data.*idmapped", "/proc/self/mountinfo"]);
    let output = t.run(&config)?;
    match output.stdout.is_empty() {
        true => output.refused().map(drop),
        false => Ok(()),
    }
}

fn maps_without_the_option_apply_or_are_refused(t: &Test) -> Outcome {
    // The spec: with the option missing, the maps still ask for an idmapped mount.
    let mut config = t.config();
    config.push(
        "mounts",
        mapped(&volume(t)?, json!(["bind"]), json!([map(1234, 7, 1)]), json!([map(5678, 8, 1)])),
    );
    config.args(&["/probe", "report", "--stat", "/data/file"]);
    let output = t.run(&config)?;
    if output.code != 0 {
        return output.refused().map(drop);
    }
    same("owner", output.json()?["stat"]["/data/file"]["uid"].as_i64(), Some(7))
}

fn a_broken_map_is_refused(t: &Test) -> Outcome {
    let volume = volume(t)?;
    for (uids, gids) in [
        (json!([map(0, 0, 10), map(5, 5, 10)]), json!([map(0, 0, 10)])),
        (json!([map(0, 0, 0)]), json!([map(0, 0, 10)])),
    ] {
        let mut config = t.config();
        config.push("mounts", mapped(&volume, json!(["bind", "idmap"]), uids, gids));
        t.run(&config)?.refused()?;
    }
    Ok(())
}
