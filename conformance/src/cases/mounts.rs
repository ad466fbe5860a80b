//! What mounts do: order, sources and destinations, propagation, tmpcopyup, proc, sysfs, the root.
//! Options are in mount_options.rs, destinations that try to get out in mount_paths.rs.

use crate::case::Need::{Kernel, Root};
use crate::case::{Case, Outcome, case, check, contains, same};
use crate::process;
use crate::sys;
use crate::test::{Mounted, Test, mount_line, mount_options, pause, strings};
use serde_json::json;
use std::fs;

pub const CASES: &[Case] = &[
    case!(bind_of_a_directory_shows_its_files),
    case!(bind_of_a_file_on_a_missing_destination),
    case!(bind_by_option_alone_needs_no_type),
    case!(bind_source_relative_to_the_bundle),
    case!(bind_source_that_is_a_symlink_is_followed),
    case!(bind_of_a_socket_a_fifo_and_a_device),
    case!(bind_of_a_file_on_a_directory_is_refused),
    case!(missing_bind_source_is_refused_and_named),
    case!(unknown_file_system_type_is_refused),
    case!(destination_is_made_with_its_parents),
    case!(destination_without_a_slash_is_below_the_root),
    case!(mounts_are_made_in_the_order_of_the_list),
    case!(a_later_mount_covers_an_earlier_one),
    case!(mounts_below_other_mounts),
    case!(the_same_destination_twice),
    case!(tmpfs_mode_of_the_configuration_wins),
    case!(tmpcopyup_copies_what_was_there),
    case!(tmpcopyup_with_ro, [Root]),
    case!(tmpcopyup_has_the_mode_that_was_asked_for),
    case!(options_of_a_filesystem_on_a_bind_mount_are_refused, [], 60),
    case!(read_only_root_is_read_only),
    case!(read_only_root_with_writable_mounts),
    case!(read_only_root_makes_missing_destinations_first),
    case!(proc_shows_the_containers_processes_only),
    case!(sysfs_and_mqueue_are_mounted),
    case!(sysfs_is_bound_where_the_network_is_the_hosts, [Root]),
    case!(no_mounts_at_all),
    case!(mounts_of_the_host_are_gone),
    case!(binds_are_listed_in_the_order_of_the_configuration),
    case!(the_root_is_listed_first),
    case!(mounts_of_the_host_are_not_copied, [Root, Kernel(6, 8)]),
    case!(overlay_with_long_paths, [Root]),
    case!(bind_without_propagation_lets_nothing_out, [Root]),
    case!(propagation_slave, [Root]),
    case!(rootfs_propagation_rshared_is_that_of_all_mounts, [Root]),
    case!(propagation_shared, [Root]),
    case!(propagation_private_of_a_shared_source, [Root]),
    case!(propagation_unbindable),
    case!(rootfs_propagation_default_keeps_mounts_inside),
    case!(rootfs_propagation_shared),
    case!(rootfs_propagation_slave_is_not_shared),
    case!(rootfs_propagation_unbindable),
    case!(rootfs_on_its_own_mount, [Root]),
    case!(rootfs_by_an_absolute_path),
    case!(no_pivot_works_too),
    case!(hundreds_of_mounts),
];

fn bind_of_a_directory_shows_its_files(t: &Test) -> Outcome {
    let volume = t.folder("volume")?;
    fs::write(volume.join("from-host"), "1")?;
    let mut config = t.config();
    config.bind(&volume, "/data", &[]);
    same(
        "files",
        t.script(&config, "echo 2 > /data/from-container; ls /data")?.as_str(),
        "from-container\nfrom-host",
    )?;
    same("on the host", fs::read_to_string(volume.join("from-container"))?.as_str(), "2\n")
}

fn bind_of_a_file_on_a_missing_destination(t: &Test) -> Outcome {
    let file = t.folder("volume")?.join("file");
    fs::write(&file, "content")?;
    let mut config = t.config();
    config.bind(&file, "/made/for/file", &["ro"]);
    same("content", t.script(&config, "cat /made/for/file")?.as_str(), "content")?;
    let probe = t.probe(&config, &["--write", "/made/for/file"])?;
    same("write", probe["write"]["/made/for/file"].as_str(), Some("EROFS"))
}

fn bind_by_option_alone_needs_no_type(t: &Test) -> Outcome {
    let volume = t.folder("volume")?;
    fs::write(volume.join("file"), "1")?;
    for options in [json!(["bind"]), json!(["rbind"])] {
        let mut config = t.config();
        config.push("mounts", json!({ "destination": "/data", "source": volume, "options": options }));
        same("files", t.script(&config, "ls /data")?.as_str(), "file")?;
    }
    Ok(())
}

fn bind_source_relative_to_the_bundle(t: &Test) -> Outcome {
    let mut config = t.shell("ls /data");
    config.mount("/data", "bind", "volume", &["bind"]);
    let c = t.container(&config)?;
    crate::bundle::make_dir(&c.bundle.join("volume/inside"))?;
    same("files", c.run()?.ok()?.stdout.trim(), "inside")
}

fn bind_source_that_is_a_symlink_is_followed(t: &Test) -> Outcome {
    fs::write(t.folder("volume")?.join("file"), "1")?;
    let way = t.dir.join("way");
    crate::bundle::link(&way, "volume")?;
    let mut config = t.config();
    config.bind(&way, "/data", &[]);
    same("files", t.script(&config, "ls /data")?.as_str(), "file")
}

fn bind_of_a_socket_a_fifo_and_a_device(t: &Test) -> Outcome {
    let volume = t.folder("volume")?;
    let _socket = std::os::unix::net::UnixListener::bind(volume.join("socket"))?;
    nix::unistd::mkfifo(&volume.join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o600))?;
    let mut config = t.config();
    config.bind(&volume.join("socket"), "/run/socket", &[]).bind(&volume.join("fifo"), "/run/fifo", &[]);
    config.bind(std::path::Path::new("/dev/null"), "/run/null", &[]);
    let args = ["--stat", "/run/socket", "--stat", "/run/fifo", "--stat", "/run/null"];
    let stat = t.probe(&config, &args)?["stat"].clone();
    for (path, kind) in [("/run/socket", "socket"), ("/run/fifo", "fifo"), ("/run/null", "char")] {
        same(path, stat[path]["type"].as_str(), Some(kind))?;
    }
    Ok(())
}

fn bind_of_a_file_on_a_directory_is_refused(t: &Test) -> Outcome {
    let file = t.dir.join("file");
    fs::write(&file, "1")?;
    let mut config = t.config();
    config.bind(&file, "/etc", &[]);
    t.run(&config)?.refused()?;
    Ok(())
}

fn missing_bind_source_is_refused_and_named(t: &Test) -> Outcome {
    let mut config = t.config();
    config.bind(&t.dir.join("not-there"), "/data", &[]);
    let error = t.run(&config)?.refused()?.stderr;
    contains("error", &error.to_lowercase(), "no such file or directory")?;
    check!(error.contains("not-there") || error.contains("/data"), "the error names nothing: {error}");
    check!(!t.dir.join("not-there").exists(), "the source was made on the host");
    Ok(())
}

fn unknown_file_system_type_is_refused(t: &Test) -> Outcome {
    let mut config = t.config();
    config.mount("/data", "nosuchfs", "none", &[]);
    t.run(&config)?.refused()?;
    Ok(())
}

fn destination_is_made_with_its_parents(t: &Test) -> Outcome {
    let mut config = t.config();
    config.mount("/one/two/three", "tmpfs", "tmpfs", &[]);
    same("modes", t.script(&config, "stat -c %a /one /one/two")?.as_str(), "755\n755")
}

fn destination_without_a_slash_is_below_the_root(t: &Test) -> Outcome {
    // Deprecated since 1.0 of the spec, but engines write it: relative to the root.
    let mut config = t.config();
    config.mount("data/here", "tmpfs", "tmpfs", &["size=64k"]).set("process.cwd", "/tmp");
    contains("mount", &mount_line(&t.probe(&config, &[])?, "/data/here")?, "tmpfs")
}

fn mounts_are_made_in_the_order_of_the_list(t: &Test) -> Outcome {
    let mut config = t.config();
    for name in ["/c", "/a", "/b"] {
        config.mount(name, "tmpfs", "tmpfs", &[]);
    }
    let probe = t.probe(&config, &[])?;
    let lines = strings(&probe["mounts"]);
    let points: Vec<&str> = lines.iter().filter_map(|line| line.split(' ').nth(4)).collect();
    let ours: Vec<&&str> = points.iter().filter(|point| ["/a", "/b", "/c"].contains(point)).collect();
    same("order", ours, vec![&"/c", &"/a", &"/b"])
}

fn a_later_mount_covers_an_earlier_one(t: &Test) -> Outcome {
    let volume = t.folder("volume")?;
    fs::write(volume.join("file"), "1")?;
    let mut config = t.config();
    config.bind(&volume, "/outer/inner", &[]).mount("/outer", "tmpfs", "tmpfs", &[]);
    same("files", t.script(&config, "ls /outer")?.as_str(), "")
}

fn mounts_below_other_mounts(t: &Test) -> Outcome {
    let volume = t.folder("volume")?;
    fs::write(volume.join("file"), "1")?;
    let mut config = t.config();
    config.mount("/outer", "tmpfs", "tmpfs", &[]).bind(&volume, "/outer/a/b", &["ro"]);
    config.mount("/outer/a/c", "tmpfs", "tmpfs", &[]).bind(&volume.join("file"), "/outer/a/c/file", &[]);
    same(
        "files",
        t.script(&config, "ls /outer/a /outer/a/b; cat /outer/a/c/file")?.as_str(),
        "/outer/a:\nb\nc\n\n/outer/a/b:\nfile\n1",
    )
}

fn the_same_destination_twice(t: &Test) -> Outcome {
    // containerd's CRI does this with /dev/shm.
    let volume = t.folder("volume")?;
    fs::write(volume.join("file"), "1")?;
    let mut config = t.config();
    config.bind(&volume, "/dev/shm", &[]);
    same("files", t.script(&config, "ls /dev/shm")?.as_str(), "file")
}

fn tmpfs_mode_of_the_configuration_wins(t: &Test) -> Outcome {
    let mut config = t.shell("stat -c %a /work");
    config.mount("/work", "tmpfs", "tmpfs", &["mode=711"]);
    let c = t.container(&config)?;
    crate::bundle::make_dir(&c.path("/work"))?;
    fs::set_permissions(c.path("/work"), std::os::unix::fs::PermissionsExt::from_mode(0o2750))?;
    same("mode", c.run()?.ok()?.stdout.trim(), "711")
}

fn tmpcopyup_copies_what_was_there(t: &Test) -> Outcome {
    let mut config = t.shell("ls /data; cat /data/sub/file; stat -c %a:%u /data/sub/file; echo > /data/new");
    config.mount("/data", "tmpfs", "tmpfs", &["tmpcopyup", "size=1m"]);
    let c = t.container(&config)?;
    fs::create_dir_all(c.path("/data/sub"))?;
    fs::write(c.path("/data/sub/file"), "was there")?;
    fs::set_permissions(c.path("/data/sub/file"), std::os::unix::fs::PermissionsExt::from_mode(0o640))?;
    crate::bundle::link(&c.path("/data/way"), "sub/file")?;
    same("seen", c.run()?.ok()?.stdout.trim(), "sub\nway\nwas there640:0")?;
    check!(!c.path("/data/new").exists(), "the write went to the root file system");
    Ok(())
}

fn tmpcopyup_with_ro(t: &Test) -> Outcome {
    let mut config = t.shell("cat /data/file; ! echo x > /data/new");
    config.mount("/data", "tmpfs", "tmpfs", &["tmpcopyup", "ro"]);
    let c = t.container(&config)?;
    fs::create_dir_all(c.path("/data"))?;
    fs::write(c.path("/data/file"), "kept")?;
    same("seen", c.run()?.ok()?.stdout.trim(), "kept")
}

fn tmpcopyup_has_the_mode_that_was_asked_for(t: &Test) -> Outcome {
    for (options, wanted) in [(&["tmpcopyup", "mode=755"][..], "755"), (&["tmpcopyup"], "1751")] {
        let mut config = t.shell("stat -c %a /data; cat /data/file");
        config.mount("/data", "tmpfs", "tmpfs", options);
        let c = t.container(&config)?;
        fs::create_dir_all(c.path("/data"))?;
        fs::write(c.path("/data/file"), "copied")?;
        fs::set_permissions(c.path("/data"), std::os::unix::fs::PermissionsExt::from_mode(0o1751))?;
        same("mode", c.run()?.ok()?.stdout.trim(), format!("{wanted}\ncopied").as_str())?;
    }
    Ok(())
}

fn options_of_a_filesystem_on_a_bind_mount_are_refused(t: &Test) -> Outcome {
    let source = t.folder("source")?;
    for option in ["size=1m", "mode=700", "nosuchoption"] {
        let mut config = t.config();
        config.bind(&source, "/data", &[option]);
        let error = t.run(&config)?.refused()?.stderr;
        contains("error", &error, "bind mounts cannot have any filesystem-specific options applied")?;
    }
    let mut config = t.config();
    config.bind(&source, "/data", &["sync", "lazytime", "silent"]);
    t.run(&config)?.ok()?;
    Ok(())
}

fn read_only_root_is_read_only(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("root.readonly", true);
    let probe = t.probe(&config, &["--write", "/", "--write", "/etc/passwd"])?;
    same("new entry", probe["write"]["/"].as_str(), Some("EROFS"))?;
    same("file", probe["write"]["/etc/passwd"].as_str(), Some("EROFS"))
}

fn read_only_root_with_writable_mounts(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("root.readonly", true).mount("/tmp", "tmpfs", "tmpfs", &[]).bind(
        &t.folder("volume")?,
        "/var",
        &[],
    );
    let probe = t.probe(
        &config,
        &["--write", "/tmp", "--write", "/var", "--write", "/dev/shm", "--write", "/dev/null"],
    )?;
    for path in ["/tmp", "/var", "/dev/shm", "/dev/null"] {
        same(path, probe["write"][path].as_str(), Some("ok"))?;
    }
    Ok(())
}

fn read_only_root_makes_missing_destinations_first(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("root.readonly", true).mount("/made", "tmpfs", "tmpfs", &[]);
    same("write", t.probe(&config, &["--write", "/made"])?["write"]["/made"].as_str(), Some("ok"))
}

fn proc_shows_the_containers_processes_only(t: &Test) -> Outcome {
    let pids = t.script(&t.config(), "ls /proc | grep -c '^[0-9]'; cat /proc/1/comm; true")?;
    let mut lines = pids.lines();
    let count: u32 = lines.next().unwrap_or_default().parse().unwrap_or(0);
    check!((1..=4).contains(&count), "{count} processes");
    same("pid 1", lines.next(), Some("sh"))
}

fn sysfs_and_mqueue_are_mounted(t: &Test) -> Outcome {
    let probe = t.probe(&t.config(), &["--read", "/sys/kernel"])?;
    contains("sysfs", &mount_line(&probe, "/sys")?, " - sysfs ")?;
    contains("mqueue", &mount_line(&probe, "/dev/mqueue")?, " - mqueue ")?;
    contains("proc", &mount_line(&probe, "/proc")?, " - proc ")?;
    contains("devpts", &mount_line(&probe, "/dev/pts")?, " - devpts ")?;
    check!(mount_options(&probe, "/sys")?.contains(&"ro".to_owned()), "sysfs is writable");
    same("sysfs", probe["read"]["/sys/kernel"].as_str(), Some("ok"))
}

fn sysfs_is_bound_where_the_network_is_the_hosts(t: &Test) -> Outcome {
    let mut config = t.config();
    config.no_namespace("network");
    contains("sysfs", &mount_line(&t.probe(&config, &[])?, "/sys")?, " - sysfs ")
}

fn no_mounts_at_all(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("mounts", json!([]));
    same("output", t.script(&config, "echo here; ls /proc")?.as_str(), "here")?;
    config.remove("mounts");
    same("output", t.script(&config, "echo here; ls /proc")?.as_str(), "here")
}

fn mounts_of_the_host_are_gone(t: &Test) -> Outcome {
    let mut config = t.config();
    config.mount("/m", "tmpfs", "tmpfs", &[]);
    let probe = t.probe(&config, &[])?;
    let expected = ["/", "/proc", "/dev", "/sys", "/m"];
    for line in strings(&probe["mounts"]) {
        let point = line.split(' ').nth(4).unwrap_or_default().to_owned();
        let known = expected.contains(&point.as_str()) || point.starts_with("/dev/");
        check!(known, "a mount that nobody asked for: {line}");
    }
    Ok(())
}

/// Runs a container with a bind of a shared source and the option; mounts something on the host's side
/// and in the container; whether it was seen in the container, and on the host.
fn exchange(t: &Test, root: Option<&str>, options: &[&str]) -> Outcome<(bool, bool)> {
    let source = t.folder("source")?;
    let _top = Mounted::tmpfs(&source)?;
    fs::create_dir(source.join("from-host"))?;
    fs::create_dir(source.join("from-container"))?;
    let script = "mount -t tmpfs inside /data/from-container && echo up > /up; while [ ! -e /go ]; do sleep 0.02; done; \
                  grep -c ' /data/from-host ' /proc/self/mountinfo > /seen.tmp; mv /seen.tmp /seen; sleep 1000";
    let mut config = t.shell(script);
    config.capabilities(&["CAP_SYS_ADMIN"]).mount("/data", "bind", &source.display().to_string(), options);
    if let Some(root) = root {
        config.set("linux.rootfsPropagation", root);
    }
    let c = t.detached(&config)?;
    c.await_file("/up")?;
    let on_host = crate::leaks::mounts().iter().any(|line| line.contains("/from-container "));
    let below = Mounted::tmpfs(&source.join("from-host"))?;
    pause(20);
    fs::write(c.path("/go"), "1")?;
    let in_container = c.await_file("/seen")?.trim() == "1";
    c.delete_force()?.ok()?;
    drop(below);
    let _ = nix::mount::umount(&source.join("from-container"));
    Ok((in_container, on_host))
}

/// Longer than one value of fsconfig(2) may be.
fn binds_are_listed_in_the_order_of_the_configuration(t: &Test) -> Outcome {
    let mut config = t.config();
    let wanted: Vec<String> = (0..6).map(|n| format!("/listed/{n}")).collect();
    for (n, destination) in wanted.iter().enumerate() {
        match n % 2 {
            0 => config.mount(destination, "tmpfs", "tmpfs", &[]),
            _ => config.bind(&t.folder("volume")?, destination, &[]),
        };
    }
    let found = t.script(&config, "cut -d' ' -f5 /proc/self/mountinfo | grep ^/listed/")?;
    same("mount points", found.lines().map(str::to_owned).collect::<Vec<_>>(), wanted)
}

/// With and without a bind mount, and with a mask, whose source is a mount of the host.
fn the_root_is_listed_first(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("linux.maskedPaths", serde_json::json!(["/proc/timer_list", "/proc/keys"]));
    for binds in [false, true] {
        if binds {
            config.bind(&t.folder("volume")?, "/data", &[]);
        }
        let first = t.script(&config, "head -n 1 /proc/self/mountinfo | cut -d' ' -f5")?;
        same("the first mount point", first.trim(), "/")?;
    }
    Ok(())
}

/// A run costs the same on a host with thousands of mounts: the kernel numbers all mounts that are ever made.
fn mounts_of_the_host_are_not_copied(t: &Test) -> Outcome {
    let dir = t.folder("host")?;
    let _host = Mounted::tmpfs(&dir)?;
    let source = dir.join("source");
    fs::create_dir(&source)?;
    let (number, mut mounted) = (3000, Vec::new());
    for n in 0..number {
        let place = dir.join(n.to_string());
        fs::create_dir(&place)?;
        mounted.push(Mounted::bind(&source, &place)?);
    }
    let c = t.container(&t.config())?;
    let before = newest_mount(t)?;
    c.run()?.ok()?;
    let made = newest_mount(t)? - before;
    // Other cases run at the same time.
    check!(made < number / 2, "{made} mounts were made, where the host has {number}");
    Ok(())
}

/// The number of a new mount, which is higher than those of all before.
fn newest_mount(t: &Test) -> Outcome<u64> {
    let place = t.folder("newest")?;
    let _mount = Mounted::tmpfs(&place)?;
    Ok(sys::number_of_mount(&place)?)
}

fn overlay_with_long_paths(t: &Test) -> Outcome {
    let folder = |name: &str| -> Outcome<String> {
        let dir = t.folder(&format!("{}-{name}", "long".repeat(40)))?;
        fs::write(dir.join(name), "")?;
        Ok(dir.display().to_string())
    };
    let lower = format!("lowerdir={}:{}", folder("one")?, folder("two")?);
    let (upper, work) = (t.folder("upper")?, t.folder("work")?);
    let (upper, work) = (format!("upperdir={}", upper.display()), format!("workdir={}", work.display()));
    let mut config = t.config();
    config.mount("/data", "overlay", "overlay", &["nodev", &lower, &upper, &work]);
    same("files", t.script(&config, "touch /data/three; ls /data | tr '\\n' ' '")?.trim(), "one three two")?;
    contains("mount", &mount_line(&t.probe(&config, &[])?, "/data")?, "nodev")
}

fn bind_without_propagation_lets_nothing_out(t: &Test) -> Outcome {
    same("on the host", exchange(t, None, &["rbind"])?.1, false)?;
    same("on the host", exchange(t, None, &["bind"])?.1, false)
}

fn propagation_slave(t: &Test) -> Outcome {
    let root = Some("rslave");
    same("in the container, on the host", exchange(t, root, &["rbind", "rslave"])?, (true, false))?;
    same("in the container, on the host", exchange(t, root, &["bind", "slave"])?, (true, false))?;
    // What is said of the root is not said of other mounts.
    same("in the container, on the host", exchange(t, Some("private"), &["rbind", "rslave"])?, (true, false))
}

fn propagation_shared(t: &Test) -> Outcome {
    let root = Some("rshared");
    same("in the container, on the host", exchange(t, root, &["rbind", "rshared"])?, (true, true))
}

fn propagation_private_of_a_shared_source(t: &Test) -> Outcome {
    same("in the container, on the host", exchange(t, None, &["rbind", "rprivate"])?, (false, false))?;
    same("in the container, on the host", exchange(t, None, &["bind", "private"])?, (false, false))
}

fn propagation_unbindable(t: &Test) -> Outcome {
    let source = t.folder("source")?;
    let mut config = t.config();
    config.mount("/data", "bind", &source.display().to_string(), &["bind", "unbindable"]);
    contains("mount", &mount_line(&t.probe(&config, &[])?, "/data")?, "unbindable")
}

fn rootfs_propagation_default_keeps_mounts_inside(t: &Test) -> Outcome {
    let mut config = t.config();
    config.capabilities(&["CAP_SYS_ADMIN"]);
    let probe = t.probe(&config, &[])?;
    let root = mount_line(&probe, "/")?;
    check!(!root.contains("shared:"), "the root is shared with the host: {root}");
    t.script(&config, "mkdir /x; mount -t tmpfs x /x")?;
    Ok(())
}

fn rootfs_propagation_shared(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("linux.rootfsPropagation", "shared");
    contains("root", &mount_line(&t.probe(&config, &[])?, "/")?, "shared:")
}

fn rootfs_propagation_slave_is_not_shared(t: &Test) -> Outcome {
    let mut config = t.config();
    for value in ["slave", "rslave", "private", "rprivate"] {
        config.set("linux.rootfsPropagation", value);
        let root = mount_line(&t.probe(&config, &[])?, "/")?;
        check!(!root.contains("shared:"), "{value}: {root}");
    }
    Ok(())
}

fn rootfs_propagation_unbindable(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("linux.rootfsPropagation", "unbindable");
    contains("root", &mount_line(&t.probe(&config, &[])?, "/")?, "unbindable")
}

fn rootfs_on_its_own_mount(t: &Test) -> Outcome {
    // As engines have it: an overlay or a bind at the root file system's place.
    let c = t.container(&t.shell("echo from the mount > /file; cat /file"))?;
    let _mounted = Mounted::bind(&c.rootfs(), &c.rootfs())?;
    same("output", c.run()?.ok()?.stdout.trim(), "from the mount")
}

fn rootfs_by_an_absolute_path(t: &Test) -> Outcome {
    let mut config = t.shell("echo here");
    let c = t.container(&config)?;
    fs::rename(c.rootfs(), t.dir.join("elsewhere"))?;
    config.set("root.path", t.dir.join("elsewhere").display().to_string());
    t.write_config(&c, &config)?;
    same("output", c.run()?.ok()?.stdout.trim(), "here")
}

fn no_pivot_works_too(t: &Test) -> Outcome {
    let c = t.container(&t.shell("ls /; echo x > /file"))?;
    let seen = c.run_with(&["--no-pivot"])?.ok()?.stdout;
    contains("files", &seen, "probe")?;
    check!(c.path("/file").exists(), "another root");
    Ok(())
}

fn hundreds_of_mounts(t: &Test) -> Outcome {
    let volume = t.folder("volume")?;
    let mut config = t.config();
    for n in 0..300 {
        config.bind(&volume, &format!("/many/{n}"), &["ro"]);
    }
    config.shell("grep -c ' /many/' /proc/self/mountinfo");
    let c = t.container(&config)?;
    let output = process::run(&mut c.bundle_command("run", &[]), &t.dir)?.ok()?;
    same("mounts", output.stdout.trim(), "300")
}

fn rootfs_propagation_rshared_is_that_of_all_mounts(t: &Test) -> Outcome {
    for (value, wanted) in [("shared", false), ("rshared", true)] {
        let mut config = t.config();
        config.set("linux.rootfsPropagation", value);
        let probe = t.probe(&config, &[])?;
        for (place, wanted) in [("/", true), ("/proc", wanted), ("/dev/shm", wanted)] {
            let line = mount_line(&probe, place)?;
            check!(line.contains(" shared:") == wanted, "{value}: {line}");
        }
    }
    Ok(())
}
