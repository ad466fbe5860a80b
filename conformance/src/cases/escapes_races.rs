//! Escapes that are races: somebody swaps a name while the runtime sets a container up. Each case repeats
//! for CONFORMANCE_RACE seconds (default 3) and fails when the swapping itself did not happen. escapes.rs
//! says what the group is.

use super::escapes::canary;
use crate::bundle::link;
use crate::case::Need::Root;
use crate::case::{Case, Outcome, case, check, same};
use crate::test::{Test, mount_line};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::time::{Duration, Instant};

pub const CASES: &[Case] = &[
    case!(cve_2019_19921_proc_swapped_while_mounting, [Root], 3600),
    case!(cve_2021_30465_destination_swapped_while_mounting, [Root], 3600),
    case!(cve_2024_45310_directories_made_while_swapped, [Root], 3600),
    case!(cve_2025_31133_null_swapped_while_masking, [Root], 3600),
    case!(cve_2025_52565_pty_entry_swapped, [Root], 3600),
    case!(cve_2025_52881_sysctls_are_swapped_away, [Root], 3600),
    case!(proc_renamed_while_masking, [Root], 3600),
    case!(readonly_path_swapped_while_starting, [Root], 3600),
    case!(tmpcopyup_of_a_directory_swapped_with_a_masked_one, [Root], 3600),
    case!(tmpcopyup_of_a_file_swapped_with_a_set_user_id_one, [Root], 3600),
];

/// How long a race is repeated.
pub(super) struct Race(Instant);

impl Race {
    pub(super) fn begin() -> Self {
        Self(Instant::now() + Duration::from_secs(Self::seconds()))
    }

    pub(super) fn seconds() -> u64 {
        std::env::var("CONFORMANCE_RACE").ok().and_then(|text| text.parse().ok()).unwrap_or(3).clamp(1, 3000)
    }

    pub(super) fn goes_on(&self) -> bool {
        Instant::now() < self.0
    }
}

/// A program that swaps a directory of a volume with a link to the host, as a second container could.
pub(super) struct Racer(std::sync::Arc<std::sync::atomic::AtomicBool>, Option<std::thread::JoinHandle<u64>>);

impl Racer {
    /// `place` exists; at times it is a link to `target`.
    pub(super) fn new(place: &std::path::Path, target: &str) -> Outcome<Self> {
        let other = place.with_extension("link");
        link(&other, target)?;
        Self::between(place, &other)
    }

    /// Both exist.
    pub(super) fn between(place: &std::path::Path, other: &std::path::Path) -> Outcome<Self> {
        use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (place, other, seen) = (place.to_path_buf(), other.to_path_buf(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut swaps = 0;
            while !seen.load(std::sync::atomic::Ordering::Relaxed) {
                let done = renameat2(AT_FDCWD, &place, AT_FDCWD, &other, RenameFlags::RENAME_EXCHANGE);
                swaps += u64::from(done.is_ok());
                std::thread::sleep(std::time::Duration::from_micros(30 + swaps % 170));
            }
            swaps
        });
        Ok(Self(stop, Some(thread)))
    }

    /// A race that never raced proves nothing.
    pub(super) fn end(mut self) -> Outcome {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        let swaps = self.1.take().and_then(|thread| thread.join().ok()).unwrap_or(0);
        check!(swaps > 100, "the race did not happen: {swaps} swaps");
        Ok(())
    }
}

impl Drop for Racer {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

fn cve_2021_30465_destination_swapped_while_mounting(t: &Test) -> Outcome {
    let volume = t.folder("volume")?;
    fs::create_dir_all(volume.join("way/a"))?;
    let mut config = t.config();
    config.bind(&volume, "/shared", &[]);
    for n in 0..20 {
        config.mount(&format!("/shared/way/{n}"), "tmpfs", "tmpfs", &["size=64k"]);
    }
    config.shell(&format!(
        "cat {0}/file /shared/way/*/file 2>/dev/null; ls / | grep -x canary; true",
        canary(t)
    ));
    let c = t.container(&config)?;
    let racer = Racer::new(&volume.join("way"), &canary(t))?;
    let race = Race::begin();
    while race.goes_on() {
        let output = c.run()?;
        check!(!output.stdout.contains("untouched"), "a file of the host was read: {}", output.text());
    }
    racer.end()?;
    Ok(())
}

fn cve_2024_45310_directories_made_while_swapped(t: &Test) -> Outcome {
    let volume = t.folder("volume")?;
    fs::create_dir_all(volume.join("way"))?;
    let mut config = t.config();
    config.bind(&volume, "/shared", &[]).shell("true");
    for n in 0..8 {
        config.mount(&format!("/shared/way/{n}/b/c/d/e"), "tmpfs", "tmpfs", &["size=64k"]);
    }
    let c = t.container(&config)?;
    let racer = Racer::new(&volume.join("way"), &canary(t))?;
    let race = Race::begin();
    while race.goes_on() {
        c.run()?;
        for n in 0..8 {
            let _ = fs::remove_dir_all(volume.join(format!("way/{n}")));
        }
        check!(
            fs::read_dir(t.canary())?.count() == 3,
            "made on the host: {:?}",
            crate::leaks::tree(&t.canary())
        );
    }
    racer.end()?;
    Ok(())
}

fn readonly_path_swapped_while_starting(t: &Test) -> Outcome {
    // GHSA-3q8j-pf29-vwv8: two mounts by path, and between them the path is another one.
    let volume = t.folder("volume")?;
    for name in ["way/sub", "other/sub"] {
        fs::create_dir_all(volume.join(name))?;
    }
    let mut config = t.config();
    config.bind(&volume, "/shared", &[]).set("linux.readonlyPaths", json!(["/shared/way/sub"]));
    // The name at the end may be the other directory; what the runtime mounted must be read-only.
    config.shell("grep ' /shared/' /proc/self/mountinfo | cut -d' ' -f5,6; true");
    let c = t.container(&config)?;
    let racer = Racer::new(&volume.join("way"), "other")?;
    let race = Race::begin();
    while race.goes_on() {
        let output = c.run()?;
        if output.code != 0 {
            output.refused()?;
            continue;
        }
        let line = output.stdout.trim();
        let options = line.rsplit(' ').next().unwrap_or_default();
        check!(!line.is_empty() && options.split(',').any(|word| word == "ro"), "not read-only: {line:?}");
    }
    racer.end()
}

fn cve_2019_19921_proc_swapped_while_mounting(t: &Test) -> Outcome {
    // The image's /proc is a directory of a volume's while it is looked at, and a link when it is mounted.
    let mut config = t.config();
    config.args(&["/probe"]);
    let c = t.container(&config)?;
    fs::create_dir(c.path("/evil"))?;
    let racer = Racer::new(&c.path("/proc"), "evil")?;
    let race = Race::begin();
    while race.goes_on() {
        let output = c.run()?;
        let Ok(probe) = output.json() else { continue };
        check!(mount_line(&probe, "/evil").is_err(), "procfs went through the link: {}", probe["mounts"]);
    }
    racer.end()
}

fn proc_renamed_while_masking(t: &Test) -> Outcome {
    // A container that shares the root and runs already renames /proc: the mount goes with it, and the paths that
    // are to be masked and read-only are not found where they were.
    let mut config = t.config();
    config.set("linux.readonlyPaths", json!(["/proc/sys"]));
    let masked =
        ["version", "cmdline", "cpuinfo", "meminfo", "loadavg", "uptime", "stat", "devices", "modules"];
    config.set("linux.maskedPaths", masked.map(|name| format!("/proc/{name}")).to_vec());
    config.shell(&format!(
        "for at in proc other; do \
            [ -d /$at/1 ] || continue; \
            echo mounted; \
            for file in {}; do [ -z \"$(head -c 1 /$at/$file)\" ] || echo not masked; done; \
            echo 4242 2>/dev/null > /$at/sys/kernel/msgmax && echo written; \
        done; true",
        masked.join(" ")
    ));
    let c = t.container(&config)?;
    fs::create_dir(c.path("/other"))?;
    let racer = Racer::between(&c.path("/proc"), &c.path("/other"))?;
    let (race, mut mounted) = (Race::begin(), 0);
    while race.goes_on() {
        let output = c.run()?;
        if output.code != 0 {
            output.refused()?;
            continue;
        }
        mounted += u32::from(output.stdout.contains("mounted"));
        let bad = ["not masked", "written"].iter().find(|text| output.stdout.contains(**text));
        check!(bad.is_none(), "procfs stays as it is: {}", output.text());
    }
    check!(mounted > 0, "procfs was never found");
    racer.end()
}

fn cve_2025_31133_null_swapped_while_masking(t: &Test) -> Outcome {
    let volume = super::escapes_dev::volume_of_devices(t)?;
    let mut config = super::escapes_dev::without_dev(t);
    config.set("hostname", super::escapes_dev::DECOY_VALUE).bind(&volume, "/dev", &[]);
    config.bind(&t.folder("out")?, "/out", &[]);
    // The maskedPaths are many, so that some of them meet the link.
    let names: Vec<String> = (0..40).map(|n| format!("/secret/{n}")).collect();
    config.set("linux.maskedPaths", json!(names));
    config.shell("cat /secret/* > /out/found");
    let c = t.container(&config)?;
    fs::create_dir(c.path("/secret"))?;
    for name in &names {
        fs::write(c.path(name), "secret")?;
    }
    let racer = Racer::new(&volume.join("null"), super::escapes_dev::DECOY)?;
    let race = Race::begin();
    while race.goes_on() {
        let output = c.run()?;
        let found = fs::read_to_string(t.dir.join("out/found")).unwrap_or_default();
        check!(found.is_empty(), "masked paths have {found:?}: {}", output.text());
    }
    racer.end()
}

fn cve_2025_52565_pty_entry_swapped(t: &Test) -> Outcome {
    // The pty multiplexer of this /dev works; the name of the pty that it makes leads elsewhere at times.
    let volume = super::escapes_dev::volume_of_devices(t)?;
    fs::create_dir(volume.join("pts"))?;
    link(&volume.join("pts/0"), "/real/0")?;
    link(&volume.join("ptmx"), "/real/ptmx")?;
    let mut config = super::escapes_dev::without_dev(t);
    config.mount("/real", "devpts", "devpts", &["newinstance", "ptmxmode=0666"]);
    config.bind(&volume, "/dev", &[]).bind(&t.folder("out")?, "/out", &[]);
    config.shell("stat -L -c '%t %F' /dev/console > /out/console");
    let racer = Racer::new(&volume.join("pts/0"), super::escapes_dev::DECOY)?;
    let race = Race::begin();
    while race.goes_on() {
        super::escapes_dev::with_terminal(t, &mut config, |_| Ok(()))?;
        // No file: refused.
        let console = fs::read_to_string(t.dir.join("out/console")).unwrap_or_default();
        let is_pty = console.trim() == "88 character special file" || console.contains("character special");
        check!(console.is_empty() || is_pty && console.starts_with("88 "), "the console is: {console}");
    }
    racer.end()
}

fn cve_2025_52881_sysctls_are_swapped_away(t: &Test) -> Outcome {
    // A volume over /proc/sys/net whose directory is exchanged for a link to another sysctl, the decoy.
    let volume = t.folder("volume")?;
    fs::create_dir_all(volume.join("ipv4"))?;
    fs::write(volume.join("ipv4/ip_forward"), "")?;
    let mut config = t.config();
    config.bind(&volume, "/proc/sys/net", &[]);
    config.set("linux.sysctl", json!({ "net.ipv4.ip_forward": "1" })).shell("cat /proc/sys/kernel/msgmax");
    let c = t.container(&config)?;
    let racer = Racer::new(&volume.join("ipv4/ip_forward"), "/proc/sys/kernel/msgmax")?;
    let race = Race::begin();
    while race.goes_on() {
        let output = c.run()?;
        check!(output.stdout.trim() != "1", "the value went to another sysctl: {}", output.text());
        for name in ["ip_forward", "ip_forward.link"] {
            // The names are exchanged at any moment, so the link is not followed.
            let flags = nix::fcntl::OFlag::O_NOFOLLOW.bits();
            let opened =
                fs::File::options().read(true).custom_flags(flags).open(volume.join("ipv4").join(name));
            let text = opened.and_then(std::io::read_to_string).unwrap_or_default();
            same("the file of the volume", text.as_str(), "")?;
        }
    }
    racer.end()
}

/// What is copied is what is covered.
fn tmpcopyup_of_a_directory_swapped_with_a_masked_one(t: &Test) -> Outcome {
    let volume = t.folder("volume")?;
    fs::create_dir(volume.join("way"))?;
    let mut config = t.shell("ls /shared/way; true");
    config.bind(&volume, "/shared", &[]).mount("/shared/way", "tmpfs", "tmpfs", &["tmpcopyup"]);
    config.set("linux.maskedPaths", json!(["/masked"]));
    let c = t.container(&config)?;
    fs::create_dir(c.path("/masked"))?;
    fs::write(c.path("/masked/secret"), "")?;
    let racer = Racer::new(&volume.join("way"), "/masked")?;
    let race = Race::begin();
    while race.goes_on() {
        let output = c.run()?;
        check!(!output.stdout.contains("secret"), "what is masked was copied: {}", output.text());
    }
    racer.end()
}

/// Its mode and owner are those of the file whose content is copied.
fn tmpcopyup_of_a_file_swapped_with_a_set_user_id_one(t: &Test) -> Outcome {
    let volume = t.folder("volume")?;
    let (of_user, of_root) = (volume.join("of-user"), volume.join("of-root"));
    fs::write(&of_user, "evil")?;
    std::os::unix::fs::chown(&of_user, Some(1000), Some(1000))?;
    fs::write(&of_root, "good")?;
    fs::set_permissions(&of_root, fs::Permissions::from_mode(0o4755))?;
    let mut config = t.shell("for file in /shared/*; do test -u $file && cat $file; done; true");
    config.bind(&volume, "/shared", &[]).mount("/shared", "tmpfs", "tmpfs", &["tmpcopyup"]);
    let c = t.container(&config)?;
    let racer = Racer::between(&of_user, &of_root)?;
    let race = Race::begin();
    while race.goes_on() {
        let output = c.run()?;
        check!(
            !output.stdout.contains("evil"),
            "a user's file became set-user-ID of root: {}",
            output.text()
        );
    }
    racer.end()
}
