//! docs/escapes.md is the table of the group `escapes`: which hole, which case, which runtimes fail it, and of the
//! other tests that a patch in broken/ makes fail. It is made
//! here from the suite's list of cases, from expected.txt and from the patches in broken/, and compared with the
//! file. `UPDATE_EXPECT=1 cargo test -p conformance` writes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

/// A hole: where it was, what it is, and the cases that show it.
const HOLES: &[(&str, &str, &str)] = &[
    ("CVE-2016-3697", "a numeric user is looked up as a name", "cve_2016_3697"),
    ("CVE-2016-9962", "descriptors of the runtime during exec", "cve_2016_9962 exec_shows exec_in_a_user"),
    ("CVE-2019-5736", "the runtime's program opened through /proc/PID/exe", "cve_2019_5736"),
    ("CVE-2019-16884", "a volume over /proc swallows what is written there", "cve_2019_16884"),
    ("CVE-2019-18837", "destinations through chains of links", "cve_2019_18837"),
    ("CVE-2019-19921", "/proc is a link to a directory of the image", "cve_2019_19921 proc_is_a_file"),
    ("CVE-2021-30465", "a destination exchanged between check and mount", "cve_2021_30465"),
    ("CVE-2021-43784", "lengths that do not fit into the runtime's own messages", "cve_2021_43784"),
    ("CVE-2022-27650", "exec --cap adds inheritable capabilities (crun)", "cve_2022_29162"),
    ("CVE-2022-29162", "exec --cap adds inheritable capabilities (runc)", "cve_2022_29162"),
    ("CVE-2023-25809", "cgroups of the host are writable below a bound /sys", "cve_2023_25809"),
    ("CVE-2023-27561", "as CVE-2019-19921, again", "cve_2019_19921"),
    (
        "CVE-2023-28642",
        "/proc or /sys is a link, so that no label is applied",
        "cve_2023_28642 cve_2019_19921_proc_is",
    ),
    (
        "CVE-2024-21626",
        "a working directory or program by /proc/self/fd",
        "cve_2024_21626 program_by_descriptor",
    ),
    ("CVE-2024-45310", "directories made on the host by a race", "cve_2024_45310"),
    ("CVE-2025-24965", "a file of a handler written through a link", "cve_2025_24965"),
    ("CVE-2025-27612", "a process given as a file gets inheritable capabilities", "cve_2025_27612"),
    ("CVE-2025-31133", "paths masked with what the image has as /dev/null", "cve_2025_31133"),
    ("CVE-2025-52565", "/dev/console bound from a name that leads elsewhere", "cve_2025_52565"),
    ("CVE-2025-52881", "writes to procfs led to other files", "cve_2025_52881"),
    (
        "CVE-2025-54867",
        "/proc or /sys as a link is accepted (youki)",
        "cve_2019_19921_proc_is cve_2023_28642",
    ),
    ("CVE-2025-62161", "as CVE-2025-31133 (youki)", "cve_2025_31133"),
    ("CVE-2025-62596", "as CVE-2025-52881 (youki)", "cve_2025_52881 cve_2019_16884"),
    ("CVE-2026-30892", "exec --user takes what is no id", "cve_2026_30892"),
    (
        "CVE-2026-41579",
        "/dev is a link: links made and removed on the host",
        "cve_2026_41579 ptmx_is_a_symlink_out",
    ),
    ("CVE-2026-47766", "/dev is a link: devices made on the host", "cve_2026_47766 device_node_over"),
    ("CVE-2026-88264", "/dev/console is a link, without a /dev mount", "cve_2026_88264"),
    ("CVE-2026-88265", "/dev/null of the image as standard streams, with a new owner", "cve_2026_88265"),
    ("GHSA-3q8j-pf29-vwv8", "a read-only path exchanged between two mounts", "readonly_path_swapped"),
    ("masks", "a masked or read-only path is a link", "masked_path_is readonly_path_is"),
    ("masks", "a container that shares the root renames /proc", "proc_renamed_while"),
    ("CVE-2020-15257", "abstract sockets in the host's network namespace", "no_abstract_sockets"),
    ("the runtime in /proc", "its arguments and environment are seen", "pid_namespace_hides environment_of"),
    ("CVE-2024-3154", "an annotation sets a command of systemd", "annotations_set_no_command"),
    ("annotations", "a network or a file of the host by an annotation", "annotations_make annotations_write"),
    ("sysctls", "namespaces by path that are the host's", "sysctls_of_a_namespace_by_path"),
    (
        "files without end",
        "passwd, group, config.json",
        "passwd_ group_is a_configuration_without tmpcopyup_of",
    ),
    ("seccomp", "a filter that forbids exit", "a_filter_that_refuses"),
    ("--pid-file", "over a device", "pid_file_over"),
    ("descriptors", "an end of the runtime's channel is kept, so that exec does not end", "exec_ends_while"),
    ("procfs of the host", "in the init of a created container", "a_created_container"),
    ("procfs of the host", "in a joined pid namespace", "a_container_that_joins"),
    ("CAP_SYS_PTRACE", "takes the capabilities of a process that is being set up", "no_capabilities_by"),
    ("procfs of the host", "in hooks", "hooks_in_the_container a_background_process"),
    ("--no-pivot", "a procfs without masks in a user namespace", "no_pivot_"),
    ("hooks", "more privileges than the process", "start_container_hooks_have"),
    ("state", "a program that looks like the stage", "a_program_named_like"),
    ("state", "a program that executes the stage again", "a_program_that_executes_what_waited"),
    ("keyrings", "the session keyring is found by a name that others can guess", "a_keyring_of"),
    ("descriptors", "LISTEN_FDS and --preserve-fds", "descriptors_that_nobody listen_fds_that"),
];

/// The CVEs of runc, crun and youki from 2019 to 2026.
const ASSIGNED: usize = 26;
const OLDER: [&str; 4] = ["CVE-2016-3697", "CVE-2016-9962", "CVE-2020-15257", "CVE-2024-3154"];

const HEAD: &str = "# Escapes

Ways out of a container that runtimes had, each as a case of the suite: `cargo run -p conformance escapes`. A case
passes where the runtime refuses the configuration and where the container stays in its bounds. Every target is a
decoy of the case's own, so that no host is harmed by a runtime that fails. Races are repeated for three seconds,
or for CONFORMANCE_RACE seconds.

A case is worth something when it fails where the hole is: with Debian 12's runc or crun, or with onggi and a patch
that re-opens the hole. `conformance/broken/run` builds onggi with each of these patches and shows it. \"At times\"
are races, and answers that depend on timing. The table is made from `conformance/expected.txt` and
`conformance/broken/`, and a test compares it; `UPDATE_EXPECT=1 cargo test -p conformance` writes it.
What a runtime skips, such as a program that executes the stage again where that needs libraries, counts as passed.

| hole | | case | onggi | runc 1.1.5 | crun 1.8.1 | broken build |
|---|---|---|---|---|---|---|
";

const OTHERS: &str = "
Tests of other groups that are shown to fail in the same way, with a patch that breaks what they test. Names without a
file of the suite's are unit tests of the library.

| test | broken build |
|---|---|
";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `GROUP::CASE` of all cases, and of those of the group.
fn cases() -> (Vec<String>, Vec<String>) {
    let output = Command::new(env!("CARGO_BIN_EXE_conformance")).arg("--list").output();
    let text = String::from_utf8(output.expect("the suite runs").stdout).expect("UTF-8");
    let names = text.lines().filter_map(|line| line.split_whitespace().next());
    let all: Vec<String> = names.filter(|name| name.contains("::")).map(str::to_owned).collect();
    let own = all.iter().filter(|name| name.starts_with("escapes")).cloned().collect();
    (all, own)
}

/// What expected.txt says of a runtime, as root on cgroup v1.
fn verdict(list: &str, runtime: &str, version: &str, case: &str) -> &'static str {
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let (Some(who), Some(pattern)) = (words.next(), words.next()) else { continue };
        let mut tags = who.split('+');
        let name = tags.next().unwrap_or_default();
        let (name, prefix) = name.split_once('@').unwrap_or((name, ""));
        let tags: Vec<&str> = tags.collect();
        let covers = pattern.strip_suffix('*').map_or(pattern == case, |start| case.starts_with(start));
        let here = !tags.iter().any(|tag| matches!(*tag, "v2" | "rootless"));
        if name == runtime && version.starts_with(prefix) && covers && here {
            return if tags.contains(&"sometimes") { "fails at times" } else { "**fails**" };
        }
    }
    "passes"
}

/// Which patches break which case.
fn broken() -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in fs::read_dir(root().join("broken")).expect("broken/").flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let Some(name) = file.strip_suffix(".patch") else { continue };
        let text = fs::read_to_string(entry.path()).expect("a patch");
        let named: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("Fails: ")).collect();
        assert!(!named.is_empty(), "{file} names no case");
        for case in named {
            found.entry(case.to_owned()).or_default().insert(name.to_owned());
        }
    }
    found
}

fn table() -> String {
    let (all, cases) = cases();
    let list = fs::read_to_string(root().join("expected.txt")).expect("expected.txt");
    let mut broken = broken();
    let mut rows = String::from(HEAD);
    let (mut covered, mut unseen) = (BTreeSet::new(), BTreeSet::new());
    for (hole, what, patterns) in HOLES {
        let (mut hole, mut what) = (*hole, *what);
        for pattern in patterns.split(' ') {
            let matching =
                |case: &&String| case.split("::").nth(1).is_some_and(|name| name.starts_with(pattern));
            let matching: Vec<&String> = cases.iter().filter(matching).collect();
            assert!(!matching.is_empty(), "no case of the group begins with {pattern}");
            for case in matching {
                covered.insert(case.clone());
                let patches: Vec<String> = broken.get(case).into_iter().flatten().cloned().collect();
                let [onggi, runc, crun] = [("onggi", "0"), ("runc", "1.1.5"), ("crun", "1.8.1")]
                    .map(|(name, version)| verdict(&list, name, version, case));
                if patches.is_empty() && [runc, crun].iter().all(|verdict| !verdict.contains("fails")) {
                    unseen.insert(case);
                }
                let patches = patches.join(", ");
                rows += &format!("| {hole} | {what} | `{case}` | {onggi} | {runc} | {crun} | {patches} |\n");
                (hole, what) = ("", "");
            }
        }
    }
    let missing: Vec<&String> = cases.iter().filter(|case| !covered.contains(*case)).collect();
    assert!(missing.is_empty(), "cases that no hole names: {missing:?}");
    assert!(
        unseen.is_empty(),
        "cases that nothing is known to fail; broken/ needs a patch for each: {unseen:?}"
    );
    broken.retain(|case, _| !cases.contains(case));
    rows += OTHERS;
    for (case, patches) in &broken {
        assert!(
            all.contains(case) || case.starts_with("test ") || case.starts_with("real "),
            "a patch names {case}, which does not exist"
        );
        let patches: Vec<&str> = patches.iter().map(String::as_str).collect();
        rows += &format!("| `{}` | {} |\n", case.trim_start_matches("test "), patches.join(", "));
    }
    rows
}

#[test]
fn the_table_of_escapes_is_up_to_date() {
    let file = root().join("../docs/escapes.md");
    let table = table();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&file, &table).expect("docs/escapes.md is written");
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    assert!(found == table, "docs/escapes.md is not what UPDATE_EXPECT=1 would write");
}

#[test]
fn every_assigned_number_has_a_case() {
    let numbers: BTreeSet<&str> =
        HOLES.iter().map(|(hole, ..)| *hole).filter(|hole| hole.starts_with("CVE-")).collect();
    let assigned = numbers.iter().filter(|number| !OLDER.contains(number)).count();
    assert_eq!(assigned, ASSIGNED, "{numbers:?}");
}

/// A patch that does not apply any more shows nothing.
#[test]
fn every_patch_applies() {
    for entry in fs::read_dir(root().join("broken")).expect("broken/").flatten() {
        if entry.path().extension().is_none_or(|extension| extension != "patch") {
            continue;
        }
        let mut git = Command::new("git");
        git.args(["apply", "--check"]).arg(entry.path()).current_dir(root().join(".."));
        let Ok(output) = git.output() else { return println!("skipped: there is no git") };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", entry.path().display());
    }
}
