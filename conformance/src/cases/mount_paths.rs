//! Destinations that lead elsewhere: symbolic links in the root file system, dots, links that point to
//! the host. Whatever the runtime answers, the host stays as it was: the canary is compared after each case.
//! The same for /proc, /dev and masks is in security.rs.

use crate::bundle::{Config, link};
use crate::case::{Case, Outcome, case, check, contains, same};
use crate::test::{Container, Test, mount_line};
use serde_json::json;
use std::fs;

pub const CASES: &[Case] = &[
    case!(an_absolute_symlink_as_destination_stays_inside),
    case!(a_relative_symlink_as_destination_stays_inside),
    case!(a_symlink_in_the_middle_stays_inside),
    case!(dots_in_the_destination_stay_inside),
    case!(a_chain_of_symlinks_stays_inside),
    case!(a_loop_of_symlinks_is_refused),
    case!(a_dangling_symlink_as_destination_makes_nothing_outside),
    case!(a_file_destination_below_a_symlink_makes_nothing_outside),
    case!(five_missing_components_below_a_symlink_make_nothing_outside),
    case!(a_symlink_made_by_an_earlier_mount_stays_inside),
    case!(a_magic_link_as_destination_is_refused),
    case!(tmpcopyup_through_a_symlink_stays_inside),
    case!(the_root_as_destination_is_contained),
    case!(a_bind_over_the_program_is_what_runs),
    case!(a_destination_that_is_a_dangling_link_inside_is_made),
    case!(what_a_later_mount_covers_is_not_mounted_into),
    case!(a_working_directory_is_not_made_below_a_mask),
];

/// A container with a bind of a volume, before it runs; the volume has a file `mine`.
fn prepared(t: &Test, destination: &str, file: bool) -> Outcome<Container> {
    let volume = t.folder("volume")?;
    fs::write(volume.join("mine"), "mine")?;
    let mut config = t.config();
    config.args(&["/probe"]);
    let source = if file { volume.join("mine") } else { volume };
    config.bind(&source, destination, &[]);
    t.container(&config)
}

/// Runs it; if it is accepted, the mount must be at `place` inside.
fn contained(c: &Container, place: &str) -> Outcome {
    let output = c.run()?;
    if output.code != 0 {
        output.refused()?;
        return Ok(());
    }
    mount_line(&output.json()?, place).map(drop)
}

fn an_absolute_symlink_as_destination_stays_inside(t: &Test) -> Outcome {
    let c = prepared(t, "/way", false)?;
    let canary = t.canary().display().to_string();
    link(&c.path("/way"), &canary)?;
    contained(&c, &canary)
}

fn a_relative_symlink_as_destination_stays_inside(t: &Test) -> Outcome {
    let c = prepared(t, "/way", false)?;
    let canary = t.canary().display().to_string();
    link(&c.path("/way"), &format!("../../../../../../..{canary}"))?;
    contained(&c, &canary)
}

fn a_symlink_in_the_middle_stays_inside(t: &Test) -> Outcome {
    let c = prepared(t, "/way/dir/new", false)?;
    let canary = t.canary().display().to_string();
    link(&c.path("/way"), &canary)?;
    contained(&c, &format!("{canary}/dir/new"))
}

fn dots_in_the_destination_stay_inside(t: &Test) -> Outcome {
    let canary = t.canary().display().to_string();
    let c = prepared(t, &format!("/tmp/../../../../../..{canary}"), false)?;
    contained(&c, &canary)
}

fn a_chain_of_symlinks_stays_inside(t: &Test) -> Outcome {
    let canary = t.canary().display().to_string();
    let c = prepared(t, "/l0/x", false)?;
    for n in 0..30 {
        link(&c.path(&format!("/l{n}")), &format!("l{}", n + 1))?;
    }
    link(&c.path("/l30"), &format!("/tmp/../../..{canary}"))?;
    contained(&c, &format!("{canary}/x"))
}

fn a_loop_of_symlinks_is_refused(t: &Test) -> Outcome {
    let c = prepared(t, "/a", false)?;
    link(&c.path("/a"), "b")?;
    link(&c.path("/b"), "a")?;
    c.run()?.refused()?;
    Ok(())
}

fn a_dangling_symlink_as_destination_makes_nothing_outside(t: &Test) -> Outcome {
    let c = prepared(t, "/way", false)?;
    let missing = t.canary().join("made");
    link(&c.path("/way"), &missing.display().to_string())?;
    contained(&c, &missing.display().to_string())?;
    check!(!missing.exists(), "made on the host: {}", missing.display());
    Ok(())
}

fn a_file_destination_below_a_symlink_makes_nothing_outside(t: &Test) -> Outcome {
    let c = prepared(t, "/way/made", true)?;
    let canary = t.canary().display().to_string();
    link(&c.path("/way"), &canary)?;
    contained(&c, &format!("{canary}/made"))
}

fn five_missing_components_below_a_symlink_make_nothing_outside(t: &Test) -> Outcome {
    // CVE-2024-45310: directories made through a link that leads out.
    let c = prepared(t, "/way/1/2/3/4/5", false)?;
    let canary = t.canary().display().to_string();
    link(&c.path("/way"), &canary)?;
    contained(&c, &format!("{canary}/1/2/3/4/5"))
}

fn a_symlink_made_by_an_earlier_mount_stays_inside(t: &Test) -> Outcome {
    let canary = t.canary().display().to_string();
    let volume = t.folder("volume")?;
    link(&volume.join("way"), &canary)?;
    let mut config = t.config();
    config.args(&["/probe"]).bind(&volume, "/data", &[]).mount("/data/way/sub", "tmpfs", "tmpfs", &[]);
    contained(&t.container(&config)?, &format!("{canary}/sub"))
}

fn a_magic_link_as_destination_is_refused(t: &Test) -> Outcome {
    // /proc/1/root and /proc/self/cwd lead to where the runtime is, outside while it sets up.
    for way in ["/proc/self/cwd/x", "/proc/self/root/x", "/proc/1/cwd/x", "/proc/self/fd/0"] {
        let c = prepared(t, way, false)?;
        let output = c.run()?;
        check!(output.code != 0 || output.stdout.contains("/x "), "{way}: {}", output.text());
    }
    Ok(())
}

fn tmpcopyup_through_a_symlink_stays_inside(t: &Test) -> Outcome {
    let mut config = t.shell("cat /way/file 2>/dev/null; true");
    config.mount("/way", "tmpfs", "tmpfs", &["tmpcopyup"]);
    let c = t.container(&config)?;
    link(&c.path("/way"), &t.canary().display().to_string())?;
    let output = c.run()?;
    check!(!output.stdout.contains("untouched"), "a file of the host was copied: {}", output.text());
    Ok(())
}

fn the_root_as_destination_is_contained(t: &Test) -> Outcome {
    let mut config: Config = t.config();
    config.args(&["/probe"]).mount("/", "tmpfs", "tmpfs", &[]);
    let output = t.run(&config)?;
    // A tmpfs over the root has no /probe: either it is refused, or it is below what the program sees.
    check!(output.code != 0 || output.stdout.contains("\"pid\":1"), "{}", output.text());
    Ok(())
}

fn a_bind_over_the_program_is_what_runs(t: &Test) -> Outcome {
    let program = t.dir.join("program");
    fs::write(&program, "#!/bin/sh\necho bound\n")?;
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let mut config = t.config();
    config.args(&["/bin/true"]).bind(&program, "/bin/true", &[]);
    same("output", t.run(&config)?.ok()?.stdout.trim(), "bound")
}

fn a_destination_that_is_a_dangling_link_inside_is_made(t: &Test) -> Outcome {
    // As /var/run -> /run in many images, with /run not there yet.
    let c = prepared(t, "/var/run/x", false)?;
    link(&c.path("/var/run"), "/run")?;
    let output = c.run()?.ok()?;
    contains("mount", &mount_line(&output.json()?, "/run/x")?, "/run/x")
}

fn what_a_later_mount_covers_is_not_mounted_into(t: &Test) -> Outcome {
    let mut config = t.config();
    config.args(&["/bin/sh", "-c", "touch /new/two/file && ls /new"]);
    for destination in ["/new", "/new/one", "/new", "/new/two"] {
        config.mount(destination, "tmpfs", "tmpfs", &[]);
    }
    same("what is in the second mount", t.run(&config)?.ok()?.stdout.trim(), "two")
}

fn a_working_directory_is_not_made_below_a_mask(t: &Test) -> Outcome {
    let mut config = t.config();
    config.args(&["/bin/true"]).set("process.cwd", json!("/dev/made"));
    config.set("linux.maskedPaths", json!(["/dev"]));
    t.run(&config)?.refused().map(drop)
}
