//! Every option of the specification's table of mount options, on a new tmpfs, on a bind and, for the
//! recursive ones, on a bind with a mount below it. What mounts do otherwise is in mounts.rs.

use crate::case::Need::{Kernel, Root};
use crate::case::{Case, Outcome, case, check};
use crate::test::{Mounted, Test, mount_line, mount_options};

pub const CASES: &[Case] = &[
    case!(an_empty_option_is_skipped),
    case!(tmpfs_ro),
    case!(tmpfs_rw_after_ro),
    case!(tmpfs_nosuid),
    case!(tmpfs_suid_after_nosuid),
    case!(tmpfs_nodev, [Root]),
    case!(tmpfs_dev_after_nodev, [Root]),
    case!(tmpfs_noexec),
    case!(tmpfs_exec_after_noexec),
    case!(tmpfs_noatime),
    case!(tmpfs_atime_after_noatime),
    case!(tmpfs_nodiratime),
    case!(tmpfs_diratime_after_nodiratime),
    case!(tmpfs_relatime),
    case!(tmpfs_norelatime),
    case!(tmpfs_strictatime),
    case!(tmpfs_nostrictatime),
    case!(tmpfs_sync),
    case!(tmpfs_async_after_sync),
    case!(tmpfs_dirsync),
    case!(tmpfs_lazytime),
    case!(tmpfs_nolazytime_after_lazytime),
    case!(tmpfs_iversion_and_noiversion),
    case!(tmpfs_mand_and_nomand),
    case!(tmpfs_silent_and_loud),
    case!(tmpfs_nosymfollow, [Kernel(5, 10)]),
    case!(tmpfs_symfollow_after_nosymfollow, [Kernel(5, 10)]),
    case!(tmpfs_defaults_changes_nothing),
    case!(tmpfs_data_options_are_passed_on),
    case!(tmpfs_option_that_nobody_knows_is_refused),
    case!(bind_ro),
    case!(bind_ro_with_nosuid_nodev_noexec),
    case!(bind_noatime, [Root]),
    case!(bind_nosymfollow, [Kernel(5, 10)]),
    case!(bind_keeps_the_flags_of_its_source, [Root]),
    case!(bind_does_not_take_submounts, [Root]),
    case!(rbind_takes_submounts, [Root]),
    case!(rbind_ro_changes_the_top_only, [Root]),
    case!(recursive_ro, [Root, Kernel(5, 12)]),
    case!(recursive_ro_beside_other_options, [Root, Kernel(5, 12)]),
    case!(recursive_rw_of_what_is_read_only_below, [Root, Kernel(5, 12)]),
    case!(recursive_nosuid_nodev_noexec, [Root, Kernel(5, 12)]),
    case!(recursive_suid_dev_exec, [Root, Kernel(5, 12)]),
    case!(recursive_noatime_and_nodiratime, [Root, Kernel(5, 12)]),
    case!(recursive_relatime_and_strictatime, [Root, Kernel(5, 12)]),
    case!(recursive_nosymfollow, [Root, Kernel(5, 14)]),
    case!(remount_of_an_earlier_mount),
];

/// Mounts a tmpfs with the options, and looks whether the mount table has, and lacks, others.
fn tmpfs(t: &Test, given: &[&str], has: &[&str], lacks: &[&str]) -> Outcome {
    let mut config = t.config();
    config.mount("/m", "tmpfs", "tmpfs", given);
    looks(t, &config, "/m", has, lacks)
}

fn looks(t: &Test, config: &crate::bundle::Config, place: &str, has: &[&str], lacks: &[&str]) -> Outcome {
    let probe = t.probe(config, &[])?;
    let found = mount_options(&probe, place)?;
    for option in has {
        check!(found.iter().any(|have| have == option), "{place}: no {option} in {found:?}");
    }
    for option in lacks {
        check!(!found.iter().any(|have| have == option), "{place}: {option} in {found:?}");
    }
    Ok(())
}

fn an_empty_option_is_skipped(t: &Test) -> Outcome {
    tmpfs(t, &["", "nosuid"], &["nosuid"], &[])
}

fn tmpfs_ro(t: &Test) -> Outcome {
    tmpfs(t, &["ro"], &["ro"], &[])
}

fn tmpfs_rw_after_ro(t: &Test) -> Outcome {
    tmpfs(t, &["ro", "rw"], &["rw"], &["ro"])
}

fn tmpfs_nosuid(t: &Test) -> Outcome {
    tmpfs(t, &["nosuid"], &["nosuid"], &["nodev", "noexec"])
}

fn tmpfs_suid_after_nosuid(t: &Test) -> Outcome {
    tmpfs(t, &["nosuid", "suid"], &[], &["nosuid"])
}

fn tmpfs_nodev(t: &Test) -> Outcome {
    tmpfs(t, &["nodev"], &["nodev"], &["nosuid", "noexec"])
}

fn tmpfs_dev_after_nodev(t: &Test) -> Outcome {
    tmpfs(t, &["nodev", "dev"], &[], &["nodev"])
}

fn tmpfs_noexec(t: &Test) -> Outcome {
    tmpfs(t, &["noexec"], &["noexec"], &["nosuid"])
}

fn tmpfs_exec_after_noexec(t: &Test) -> Outcome {
    tmpfs(t, &["noexec", "exec"], &[], &["noexec"])
}

fn tmpfs_noatime(t: &Test) -> Outcome {
    tmpfs(t, &["noatime"], &["noatime"], &["relatime"])
}

fn tmpfs_atime_after_noatime(t: &Test) -> Outcome {
    tmpfs(t, &["noatime", "atime"], &[], &["noatime"])
}

fn tmpfs_nodiratime(t: &Test) -> Outcome {
    tmpfs(t, &["nodiratime"], &["nodiratime"], &[])
}

fn tmpfs_diratime_after_nodiratime(t: &Test) -> Outcome {
    tmpfs(t, &["nodiratime", "diratime"], &[], &["nodiratime"])
}

fn tmpfs_relatime(t: &Test) -> Outcome {
    tmpfs(t, &["relatime"], &["relatime"], &["noatime"])
}

fn tmpfs_norelatime(t: &Test) -> Outcome {
    // Without relatime, noatime and strictatime the kernel takes relatime: nothing to see but that it works.
    tmpfs(t, &["norelatime"], &[], &["noatime"])
}

fn tmpfs_strictatime(t: &Test) -> Outcome {
    tmpfs(t, &["strictatime"], &[], &["relatime", "noatime"])
}

fn tmpfs_nostrictatime(t: &Test) -> Outcome {
    tmpfs(t, &["strictatime", "nostrictatime"], &["relatime"], &[])
}

fn tmpfs_sync(t: &Test) -> Outcome {
    tmpfs(t, &["sync"], &["sync"], &[])
}

fn tmpfs_async_after_sync(t: &Test) -> Outcome {
    tmpfs(t, &["sync", "async"], &[], &["sync"])
}

fn tmpfs_dirsync(t: &Test) -> Outcome {
    tmpfs(t, &["dirsync"], &["dirsync"], &["sync"])
}

fn tmpfs_lazytime(t: &Test) -> Outcome {
    tmpfs(t, &["lazytime"], &["lazytime"], &[])
}

fn tmpfs_nolazytime_after_lazytime(t: &Test) -> Outcome {
    tmpfs(t, &["lazytime", "nolazytime"], &[], &["lazytime"])
}

fn tmpfs_iversion_and_noiversion(t: &Test) -> Outcome {
    tmpfs(t, &["iversion"], &[], &[])?;
    tmpfs(t, &["noiversion"], &[], &[])
}

fn tmpfs_mand_and_nomand(t: &Test) -> Outcome {
    // The kernel has forgotten mandatory locking (5.15): accepted, with nothing to see.
    tmpfs(t, &["mand"], &[], &[])?;
    tmpfs(t, &["nomand"], &[], &["mand"])
}

fn tmpfs_silent_and_loud(t: &Test) -> Outcome {
    tmpfs(t, &["silent"], &[], &[])?;
    tmpfs(t, &["loud"], &[], &[])
}

fn tmpfs_nosymfollow(t: &Test) -> Outcome {
    tmpfs(t, &["nosymfollow"], &["nosymfollow"], &[])
}

fn tmpfs_symfollow_after_nosymfollow(t: &Test) -> Outcome {
    tmpfs(t, &["nosymfollow", "symfollow"], &[], &["nosymfollow"])
}

fn tmpfs_defaults_changes_nothing(t: &Test) -> Outcome {
    tmpfs(t, &["defaults"], &["rw"], &["noexec", "sync"])?;
    let mut config = t.config();
    config.push("mounts", serde_json::json!({ "destination": "/m", "type": "tmpfs", "source": "tmpfs" }));
    looks(t, &config, "/m", &["rw"], &["noexec"])
}

fn tmpfs_data_options_are_passed_on(t: &Test) -> Outcome {
    tmpfs(t, &["size=64k", "mode=700", "nr_inodes=99"], &["size=64k", "mode=700", "nr_inodes=99"], &[])
}

fn tmpfs_option_that_nobody_knows_is_refused(t: &Test) -> Outcome {
    let mut config = t.config();
    config.mount("/m", "tmpfs", "tmpfs", &["colour=blue"]);
    t.run(&config)?.refused()?;
    Ok(())
}

/// The same for a bind of a directory of the host.
fn bind(t: &Test, given: &[&str], has: &[&str], lacks: &[&str]) -> Outcome {
    let mut config = t.config();
    config.bind(&t.folder("source")?, "/m", given);
    looks(t, &config, "/m", has, lacks)
}

fn bind_ro(t: &Test) -> Outcome {
    bind(t, &["ro"], &["ro"], &[])?;
    bind(t, &["ro", "rw"], &[], &["ro"])
}

fn bind_ro_with_nosuid_nodev_noexec(t: &Test) -> Outcome {
    bind(t, &["ro", "nosuid", "nodev", "noexec"], &["ro", "nosuid", "nodev", "noexec"], &[])
}

fn bind_noatime(t: &Test) -> Outcome {
    bind(t, &["noatime", "nodiratime"], &["noatime"], &["relatime"])
}

fn bind_nosymfollow(t: &Test) -> Outcome {
    bind(t, &["nosymfollow"], &["nosymfollow"], &[])
}

fn bind_keeps_the_flags_of_its_source(t: &Test) -> Outcome {
    use nix::mount::MsFlags;
    let source = t.folder("source")?;
    let _mounted = Mounted::tmpfs(&source)?;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Mounted::change(None, &source, flags)?;
    let mut config = t.config();
    config.bind(&source, "/m", &[]);
    looks(t, &config, "/m", &["nosuid", "nodev"], &["ro"])
}

/// A directory with a tmpfs below it, to be bound.
fn with_submount(t: &Test) -> Outcome<(std::path::PathBuf, Mounted)> {
    let source = t.folder("source")?;
    let below = Mounted::tmpfs(&source.join("sub"))?;
    Ok((source, below))
}

fn bind_does_not_take_submounts(t: &Test) -> Outcome {
    let (source, _below) = with_submount(t)?;
    let mut config = t.config();
    config.bind(&source, "/m", &[]);
    let probe = t.probe(&config, &[])?;
    check!(mount_line(&probe, "/m/sub").is_err(), "the mount below came along");
    Ok(())
}

/// Binds recursively with the options; what must be seen at the top, and below.
fn rbind(t: &Test, given: &[&str], top: &[&str], below: &[&str], lacks_below: &[&str]) -> Outcome {
    let (source, _below) = with_submount(t)?;
    let mut config = t.config();
    let mut options = vec!["rbind"];
    options.extend_from_slice(given);
    config.mount("/m", "bind", &source.display().to_string(), &options);
    looks(t, &config, "/m", top, &[])?;
    looks(t, &config, "/m/sub", below, lacks_below)
}

fn rbind_takes_submounts(t: &Test) -> Outcome {
    rbind(t, &[], &["rw"], &["rw"], &[])
}

fn rbind_ro_changes_the_top_only(t: &Test) -> Outcome {
    rbind(t, &["ro", "noexec"], &["ro", "noexec"], &["rw"], &["ro", "noexec"])
}

fn recursive_ro(t: &Test) -> Outcome {
    rbind(t, &["rro"], &["ro"], &["ro"], &[])
}

/// What is said of the top mount alone does not lift what is said of all.
fn recursive_ro_beside_other_options(t: &Test) -> Outcome {
    rbind(t, &["rro", "nosuid"], &["ro", "nosuid"], &["ro"], &["nosuid"])?;
    rbind(t, &["rro", "rnoexec", "noatime"], &["ro", "noexec", "noatime"], &["ro", "noexec"], &["noatime"])?;
    rbind(t, &["rro", "rw"], &["ro"], &["ro"], &[])?;
    rbind(t, &["ro", "rrw"], &["rw"], &["rw"], &[])
}

fn recursive_rw_of_what_is_read_only_below(t: &Test) -> Outcome {
    use nix::mount::MsFlags;
    let (source, _below) = with_submount(t)?;
    Mounted::change(None, &source.join("sub"), MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY)?;
    let mut config = t.config();
    config.mount("/m", "bind", &source.display().to_string(), &["rbind", "rrw"]);
    looks(t, &config, "/m/sub", &["rw"], &["ro"])
}

fn recursive_nosuid_nodev_noexec(t: &Test) -> Outcome {
    let all = ["nosuid", "nodev", "noexec"];
    rbind(t, &["rnosuid", "rnodev", "rnoexec"], &all, &all, &["ro"])
}

fn recursive_suid_dev_exec(t: &Test) -> Outcome {
    rbind(t, &["nosuid", "rsuid", "rdev", "rexec"], &[], &[], &["nosuid", "nodev", "noexec"])
}

fn recursive_noatime_and_nodiratime(t: &Test) -> Outcome {
    let all = ["noatime", "nodiratime"];
    rbind(t, &["rnoatime", "rnodiratime"], &all, &all, &["relatime"])
}

fn recursive_relatime_and_strictatime(t: &Test) -> Outcome {
    rbind(t, &["rrelatime"], &["relatime"], &["relatime"], &[])?;
    rbind(t, &["rstrictatime"], &[], &[], &["relatime", "noatime"])
}

fn recursive_nosymfollow(t: &Test) -> Outcome {
    rbind(t, &["rnosymfollow"], &["nosymfollow"], &["nosymfollow"], &[])
}

fn remount_of_an_earlier_mount(t: &Test) -> Outcome {
    let mut config = t.config();
    config.mount("/m", "tmpfs", "tmpfs", &["nosuid"]);
    config.mount("/m", "tmpfs", "tmpfs", &["remount", "ro", "nosuid"]);
    looks(t, &config, "/m", &["ro", "nosuid"], &[])
}
