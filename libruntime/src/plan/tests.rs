//! Golden tests of the plans: a piece of `config.json`, and the steps that it adds. No root, no
//! system call, a host that is made up. [`check`] is the one place that touches the API; an
//! expectation is written by hand before it is compared.
//!
//! Must not run a plan: that is done by the tests with root (`libruntime/tests`).

mod bare;
mod cgroups;
mod kept;
mod limits;
mod mount_details;
mod mounts;
mod namespaces;
mod order;
mod process;
mod properties;
mod whole;

use super::create::create;
use super::exec::exec;
use super::request::Request;
use super::{Handed, Plan};
use crate::config::Config;
use crate::host::{CgroupMount, Host};
use crate::step::Step;
use crate::{error::Diagnostic, seccomp};
use expect_test::Expect;
use serde_json::{Value, json};

/// What a plan follows from beside the configuration.
struct Given {
    host: Host,
    request: Request,
}

/// Root with every capability on cgroup v2.
fn given() -> Given {
    let mut host = Host { capabilities: (1 << 41) - 1, ..Host::default() };
    host.cgroup_mounts = vec![CgroupMount {
        name: String::new(),
        v2: true,
        options: vec![],
        host_path: "/sys/fs/cgroup/box".into(),
        links: vec![],
    }];
    let request = Request { id: "box".into(), bundle: "/bundle".into(), ..Request::default() };
    Given { host, request }
}

fn minimal() -> Value {
    json!({
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/sh"], "cwd": "/"},
        "linux": {"namespaces": [{"type": "mount"}]}
    })
}

/// Plans the minimal config and the same with `fragment`, and compares what the fragment changes:
/// `+` a step it adds, `-` one that it takes away, each below the step that comes before.
fn check(fragment: &str, expect: Expect) {
    check_from("{}", |_| {}, fragment, expect);
}

/// What `fragment` and another host or request change together.
fn check_on(change: impl Fn(&mut Given), fragment: &str, expect: Expect) {
    let mut changed = given();
    change(&mut changed);
    compare("{}", &given(), fragment, &changed, expect);
}

/// The same for what `fragment` changes in a config that has `base` already.
fn check_from(base: &str, change: impl Fn(&mut Given), fragment: &str, expect: Expect) {
    let mut given = given();
    change(&mut given);
    compare(base, &given, fragment, &given, expect);
}

fn compare(base: &str, first: &Given, fragment: &str, second: &Given, expect: Expect) {
    let mut config = minimal();
    merge(&mut config, serde_json::from_str(base).expect("base is JSON"));
    let before = lines(&planned(&config, first)).expect("the base can be planned");
    merge(&mut config, serde_json::from_str(fragment).unwrap_or_else(|error| panic!("{fragment}: {error}")));
    match lines(&planned(&config, second)) {
        Ok(after) => expect.assert_eq(&difference(&before, &after)),
        Err(error) => expect.assert_eq(&format!("{error}\n")),
    }
}

type Planned = Result<(Plan, Vec<Diagnostic>), String>;

/// As the library does it: read, compile the filter, plan.
fn planned(config: &Value, given: &Given) -> Planned {
    let read = Config::parse(config.to_string().as_bytes()).map_err(|error| error.to_string())?;
    let mut warnings = read.warnings;
    let profile = read.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let filter = profile.map(|profile| seccomp::compile(profile, &mut warnings)).transpose();
    let filter = filter.map_err(|found| crate::Error::invalid(found).to_string())?;
    let plan = create(&read.spec, &given.host, &given.request, filter.as_ref());
    plan.map(|plan| (plan, warnings)).map_err(|error| error.to_string())
}

/// The plan by which the process of `config` joins its container.
fn planned_exec(config: &Value, given: &Given) -> Plan {
    let read = Config::parse(config.to_string().as_bytes()).expect("the config is valid");
    let process = read.spec.process().clone().expect("it has a process");
    exec(&read.spec, &process, &given.host, &given.request, None).expect("it can be planned")
}

/// Objects are merged, anything else is replaced.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn lines(planned: &Planned) -> Result<Vec<String>, String> {
    let (plan, warnings) = planned.as_ref().map_err(String::clone)?;
    let mut lines: Vec<String> = plan.steps().iter().map(|(step, at)| line(at, &brief(step))).collect();
    for (at, (what, origin)) in plan.handed.iter().enumerate().skip(2) {
        if *what != Handed::Listener {
            lines.push(line(origin, &format!("Fd({at}) is {what:?}")));
        }
    }
    if let Some(maps) = &plan.new_user_namespace {
        lines.push(format!("new user namespace: {maps:?}"));
    }
    lines.extend(plan.id_maps.iter().map(|maps| format!("id map: {maps:?}")));
    lines.extend(warnings.iter().chain(&plan.warnings).map(|warning| format!("warning: {warning}")));
    Ok(lines)
}

fn line(origin: &str, text: &str) -> String {
    if origin.is_empty() { text.to_string() } else { format!("{origin}: {text}") }
}

/// The ranges of [`Step::CloseFds`].
fn numbers(passed: &super::Text) -> Vec<u32> {
    let words = passed.0.as_chunks::<4>().0;
    words.iter().map(|word| u32::from_ne_bytes(*word)).collect()
}

/// A step without what is usual. The listener's number depends on what else is handed over, and is
/// left out.
fn brief(step: &Step<super::Text>) -> String {
    let text = match step {
        Step::AwaitStart { .. } => "AwaitStart".to_string(),
        Step::CloseFds { passed, .. } => format!("CloseFds {{ passed: {:?} }}", numbers(passed)),
        // Its program is another for each architecture, and is the seccomp module's to test.
        Step::SetSeccomp { flags, notify, .. } => {
            format!("SetSeccomp {{ flags: {flags}, notify: {notify} }}")
        }
        _ => format!("{step:?}"),
    };
    let usual = [
        ", attrs: unchanged",
        ", recursive: false",
        ", copy_up: false",
        ", mode_of_target: false",
        ", relayed: false",
        ", strict: false",
        ", nofollow: false",
        ", copy_link: false",
        ", recursive_map: false",
        ", notify: false",
    ];
    usual.iter().fold(text, |text, nothing| text.replace(nothing, ""))
}

/// The longest common subsequence stays out; each run of changes says which step it follows.
fn difference(before: &[String], after: &[String]) -> String {
    let (rows, columns) = (before.len(), after.len());
    let mut longest = vec![vec![0usize; columns + 1]; rows + 1];
    for row in (0..rows).rev() {
        for column in (0..columns).rev() {
            longest[row][column] = match before[row] == after[column] {
                true => longest[row + 1][column + 1] + 1,
                false => longest[row + 1][column].max(longest[row][column + 1]),
            };
        }
    }
    let (mut row, mut column, mut text, mut said) = (0, 0, String::new(), false);
    let mut last = "the beginning";
    while row < rows || column < columns {
        if row < rows && column < columns && before[row] == after[column] {
            last = after[column].split(" { ").next().unwrap_or_default();
            (row, column, said) = (row + 1, column + 1, false);
            continue;
        }
        if !said {
            text += &format!("after {last}\n");
            said = true;
        }
        if row < rows && (column == columns || longest[row + 1][column] >= longest[row][column + 1]) {
            text += &format!("- {}\n", before[row]);
            row += 1;
        } else {
            text += &format!("+ {}\n", after[column]);
            column += 1;
        }
    }
    text
}
