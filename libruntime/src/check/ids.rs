//! User namespaces and their id maps: makes them for a moment, as `create` does.

use super::report::{Check, told};
use super::tools::{find_program, read_word, user_name};
use crate::plan::IdMaps;
use crate::{sys, userns};
use std::fs;
use std::os::unix::fs::MetadataExt;

/// What images expect: ids up to that of nobody.
const USUAL: u32 = 65536;

pub(super) fn check(root: bool, runs: bool) -> Vec<Check> {
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let own = IdMaps { uids: vec![[0, uid, 1]], gids: vec![[0, gid, 1]] };
    let mut checks = vec![user_namespaces(root, runs, &own)];
    if !root {
        let subordinate = [("subuid", "/etc/subuid", "newuidmap"), ("subgid", "/etc/subgid", "newgidmap")];
        let ranges = subordinate.map(|(name, file, program)| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let range = largest_range(&text, &user_name(uid), uid);
            let problem =
                judge(name, file, range, first_free(&text), &Mapper::find(program), &user_name(uid));
            (range, problem)
        });
        checks.push(match (&ranges[0], &ranges[1]) {
            ((Some(uids), None), (Some(gids), None)) => mapped(own, *uids, *gids),
            ((_, Some(problem)), _) | (_, (_, Some(problem))) => problem.clone(),
            _ => unreachable_range(),
        });
    }
    checks
}

/// `judge` finds a problem wherever there is no range.
fn unreachable_range() -> Check {
    Check::limited("id maps", "no range of ids", COSTS, "see subuid(5)")
}

fn user_namespaces(root: bool, runs: bool, own: &IdMaps) -> Check {
    const NAME: &str = "user namespaces";
    let restricted = read_word("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1";
    match userns::make(own) {
        // As on Ubuntu: the namespace can be made, but gives no privileges.
        Ok(_) if !root && !runs && restricted => Check::missing(
            NAME,
            "AppArmor leaves a process no privileges in its own user namespace",
            "an AppArmor profile for onggi with the rule \"userns,\", \
             or sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        Ok(_) => Check::ok(NAME, "one was made and mapped"),
        Err(error) => {
            let fix = namespace_fix(
                &read_word("/proc/sys/kernel/unprivileged_userns_clone"),
                &read_word("/proc/sys/user/max_user_namespaces"),
            );
            match root {
                true => Check::limited(NAME, told(&error), "containers with ids of their own", fix),
                false => Check::missing(NAME, told(&error), fix),
            }
        }
    }
}

fn namespace_fix(clone: &str, max: &str) -> &'static str {
    match (clone, max) {
        ("0", _) => "sysctl kernel.unprivileged_userns_clone=1, and for good in /etc/sysctl.d/",
        (_, "0") => "sysctl user.max_user_namespaces=15000, and for good in /etc/sysctl.d/",
        (_, "") => "a kernel with CONFIG_USER_NS",
        _ => "neither sysctl forbids it: look for a seccomp filter or a security module around onggi",
    }
}

const COSTS: &str = "containers have one id only: images with files of several users cannot be unpacked \
                     or run as another user";

/// How newuidmap(1) or newgidmap(1) is installed.
#[derive(Debug, PartialEq, Eq)]
enum Mapper {
    Absent(&'static str),
    Unprivileged(String),
    Able,
}

impl Mapper {
    fn find(name: &'static str) -> Self {
        let Some(path) = find_program(name) else { return Self::Absent(name) };
        let set_uid = fs::metadata(&path).is_ok_and(|data| data.mode() & 0o4000 != 0 && data.uid() == 0);
        match set_uid || sys::has_file_capabilities(&path) {
            true => Self::Able,
            false => Self::Unprivileged(path.display().to_string()),
        }
    }
}

/// What keeps a user from mapping subordinate ids.
fn judge(
    name: &'static str,
    file: &str,
    range: Option<[u32; 2]>,
    free: u32,
    mapper: &Mapper,
    user: &str,
) -> Option<Check> {
    let (found, fix) = match (mapper, range) {
        (Mapper::Absent(program), _) => (
            format!("{program} is not installed"),
            "install uidmap (Debian, Ubuntu) or shadow-utils (Fedora, Arch)".to_owned(),
        ),
        (Mapper::Unprivileged(path), _) => {
            let capability = if name == "subuid" { "cap_setuid" } else { "cap_setgid" };
            (
                format!("{path} is neither set-uid root nor has it file capabilities"),
                format!("setcap {capability}+ep {path}, or chmod u+s {path}"),
            )
        }
        (Mapper::Able, None) => (
            format!("{file} has no range for {user}"),
            format!("usermod --add-{name}s {free}-{} {user}", free + USUAL - 1),
        ),
        (Mapper::Able, Some([_, count])) if count < USUAL => (
            format!("{file} has {count} ids for {user}; images use ids up to {}", USUAL - 1),
            format!(
                "usermod --add-{name}s {free}-{} {user}, in place of the shorter range",
                free + USUAL - 1
            ),
        ),
        _ => return None,
    };
    Some(Check::limited("id maps", found, COSTS, fix))
}

/// Has newuidmap(1) and newgidmap(1) map the ranges, as `create` does.
fn mapped(mut maps: IdMaps, uids: [u32; 2], gids: [u32; 2]) -> Check {
    maps.uids.push([1, uids[0], uids[1]]);
    maps.gids.push([1, gids[0], gids[1]]);
    match userns::make(&maps) {
        Ok(_) => Check::ok("id maps", format!("{} uids and {} gids were mapped", uids[1], gids[1])),
        Err(error) => {
            let fix = error.hint().unwrap_or("see newuidmap(1)").to_owned();
            Check::limited("id maps", told(&error), COSTS, fix)
        }
    }
}

/// The first id after all ranges.
fn first_free(text: &str) -> u32 {
    let ends = text.lines().filter_map(|line| {
        let mut numbers = line.split(':').skip(1).map(|field| field.trim().parse::<u32>().ok());
        numbers.next()??.checked_add(numbers.next()??)
    });
    ends.max().unwrap_or(0).max(100_000)
}

/// The first and the number of the user's largest range (subuid(5): `NAME-OR-UID:FIRST:COUNT`).
fn largest_range(text: &str, user: &str, uid: u32) -> Option<[u32; 2]> {
    let rows = text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let owner = fields.next()?;
        let range = [fields.next()?.trim().parse().ok()?, fields.next()?.trim().parse().ok()?];
        (owner == user || owner == uid.to_string()).then_some(range)
    });
    rows.max_by_key(|[_, count]| *count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_range_of_a_name_or_a_number_is_taken() {
        let text = "alice:100000:65536\nbob:165536:65536\n1000:300000:100\nalice:500000:70000\nbroken\n";
        assert_eq!(largest_range(text, "alice", 1000), Some([500000, 70000]));
        assert_eq!(largest_range(text, "carol", 1000), Some([300000, 100]));
        assert_eq!(largest_range(text, "carol", 1001), None);
        assert_eq!((first_free(text), first_free("")), (570_000, 100_000));
    }

    #[test]
    fn what_keeps_ids_from_being_mapped_has_its_remedy() {
        let able = || Mapper::Able;
        for (range, mapper, expected) in [
            (Some([100_000, 65_536]), able(), None),
            (None, able(), Some("usermod --add-subuids 200000-265535 alice")),
            (Some([100_000, 100]), able(), Some("usermod --add-subuids 200000-265535 alice, in place")),
            (None, Mapper::Absent("newuidmap"), Some("install uidmap")),
            (
                None,
                Mapper::Unprivileged("/bin/newuidmap".into()),
                Some("setcap cap_setuid+ep /bin/newuidmap"),
            ),
        ] {
            let fix =
                judge("subuid", "/etc/subuid", range, 200_000, &mapper, "alice").and_then(|check| check.fix);
            match expected {
                None => assert_eq!(fix, None),
                Some(start) => assert!(fix.clone().is_some_and(|fix| fix.starts_with(start)), "{fix:?}"),
            }
        }
    }

    #[test]
    fn the_sysctl_that_forbids_namespaces_is_named() {
        assert!(namespace_fix("0", "100").contains("unprivileged_userns_clone=1"));
        assert!(namespace_fix("1", "0").contains("max_user_namespaces"));
        assert!(namespace_fix("", "100").contains("seccomp"));
    }
}
