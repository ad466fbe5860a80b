//! The words by which engines, scripts and people recognize a fault: those that runc prints, which Docker, Podman,
//! containerd and many scripts look for. The library's own text, with the place in `config.json`, follows them.
//!
//! Pure tables. hints.rs has the words of failed steps.

use crate::diagnostic::Diagnostic;
use crate::status::Status;
use nix::errno::Errno;

/// The text of an errno in lower case, as Go's programs print it: Docker looks for "permission denied" and "no such
/// file or directory" as they are written here.
pub(crate) fn of_errno(errno: Errno) -> String {
    match errno {
        Errno::ERANGE => "numerical result out of range".into(),
        Errno::ELOOP => "too many levels of symbolic links".into(),
        _ => lower(errno.desc()),
    }
}

/// `of_errno` by number.
#[must_use]
pub fn errno_text(errno: i32) -> String {
    of_errno(Errno::from_raw(errno))
}

fn lower(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

/// A verb on a container whose state does not allow it.
pub(crate) fn of_state(verb: &str, id: &str, found: Status) -> String {
    let words = match (verb, found) {
        ("start", Status::Running) => "cannot start an already running container",
        ("start", Status::Stopped) => "cannot start a container that has stopped",
        ("start", _) => return format!("cannot start a container in the {found} state: {id}"),
        ("exec", Status::Stopped) => "cannot exec in a stopped container",
        ("exec", Status::Paused) => "cannot exec in a paused container (use --ignore-paused to override)",
        ("exec", _) => return format!("cannot exec in a container in the {found} state: {id}"),
        ("delete", _) => return format!("cannot delete container {id} that is not stopped: {found}"),
        ("resume", _) => return format!("container not paused: {id} is {found}"),
        ("checkpoint", _) => return format!("Container cannot be checkpointed in {found} state: {id}"),
        (_, Status::Stopped) => "container not running",
        _ => return format!("container not running: {id} is {found}"),
    };
    format!("{words}: {id}")
}

/// The words of runc for a problem of the configuration, where there are any.
pub(crate) fn of_finding(finding: &Diagnostic) -> Option<String> {
    let Diagnostic { config_path, message, .. } = finding;
    let place = without_indices(config_path);
    let missing = message.starts_with("missing") || message.starts_with("is empty");
    let is = |text: &str| message.starts_with(text);
    // The value, as the message quotes it first.
    let value = message.split('"').nth(1).unwrap_or_default();
    Some(match place.as_str() {
        "root" if missing => "root must be specified".into(),
        "process" if is("is required") => "process property must not be empty".into(),
        "process.args" if missing => "args must not be empty".into(),
        "process.cwd" if missing => "Cwd property must not be empty".into(),
        "process.cwd" if message.ends_with("is not an absolute path") => {
            "Cwd must be an absolute path".into()
        }
        "process.rlimits[].type" if is("unknown value") => format!("wrong rlimit value: {value}"),
        "process.scheduler.policy" if is("unknown value") => format!("invalid scheduler policy: {value}"),
        "process.scheduler.flags[]" if is("unknown value") => format!("invalid scheduler flag: {value}"),
        "process.scheduler.nice" => format!("invalid scheduler.nice: {}", number(message)),
        "process.scheduler.priority" => {
            "scheduler.priority can only be specified for SchedFIFO or SchedRR policy".into()
        }
        "process.ioPriority.class" if is("unknown value") => format!("invalid ioPriority.Class: {value:?}"),
        "process.ioPriority.priority" => format!("invalid ioPriority.Priority: {}", number(message)),
        "process.execCPUAffinity.initial" => "bad CPUAffinity.Initial".into(),
        "process.execCPUAffinity.final" => "bad CPUAffinity.Final".into(),
        "mounts[].uidMappings" | "mounts[].gidMappings" if missing => {
            "id-mapped mounts must have both uid and gid mappings specified".into()
        }
        "hostname" if is("needs a uts") => "unable to set hostname without a private UTS namespace".into(),
        "domainname" if is("needs a uts") => {
            "unable to set domainname without a private UTS namespace".into()
        }
        _ => return of_linux(&place, config_path, message, value),
    })
}

fn of_linux(place: &str, at: &str, message: &str, value: &str) -> Option<String> {
    let unknown = message.starts_with("unknown value");
    let missing = message.starts_with("missing");
    Some(match place {
        "linux.cgroupsPath" if message.contains("slice:prefix:name") => {
            let form = "\"slice:prefix:name\" for systemd cgroups";
            format!("expected cgroupsPath to be of format {form}, got {value:?} instead")
        }
        "linux.namespaces[].type" if unknown => format!("namespace {{{value:?} \"\"}} does not exist"),
        "linux.namespaces[].type" if message.contains(" is already in ") => {
            let kind = message.split(' ').next().unwrap_or_default();
            format!("malformed spec file: duplicated ns {{{kind:?} \"\"}}")
        }
        "linux.uidMappings" if missing => "user namespaces enabled, but no uid mappings found".into(),
        "linux.gidMappings" if missing => "user namespaces enabled, but no gid mappings found".into(),
        "linux.timeOffsets" => {
            "time namespace offsets specified, but time namespace isn't enabled in the config".into()
        }
        "linux.devices[].type" if unknown => format!("invalid device type {value:?}"),
        "linux.rootfsPropagation" => format!("rootfsPropagation={value} is not supported"),
        "linux.personality.domain" if unknown => format!("invalid personality domain {value}"),
        "linux.memoryPolicy.mode" if unknown => format!("invalid memory policy mode: {value}"),
        "linux.memoryPolicy.flags[]" if unknown => format!("invalid memory policy flag: {value}"),
        "linux.intelRdt.closID" => format!("invalid intelRdt.ClosID {value:?}"),
        "linux.seccomp.defaultAction" | "linux.seccomp.syscalls[].action" if unknown => {
            format!("string {value} is not a valid action for seccomp")
        }
        "linux.seccomp.architectures[]" if unknown => {
            format!("string {value} is not a valid arch for seccomp")
        }
        "linux.seccomp.syscalls[].args[].op" if unknown => {
            format!("string {value} is not a valid operator for seccomp")
        }
        "linux.seccomp.flags[]" if unknown => format!("seccomp flag {value} is not known"),
        _ => return of_sysctl(at.strip_prefix("linux.sysctl.")?, message),
    })
}

fn of_sysctl(name: &str, message: &str) -> Option<String> {
    Some(if message.starts_with("belongs to no namespace") {
        format!("sysctl {name:?} is not in a separate kernel namespace")
    } else if name.starts_with("net.") {
        format!("sysctl {name:?} not allowed in host network namespace")
    } else if matches!(name, "kernel.hostname" | "kernel.domainname") {
        let field = name.trim_start_matches("kernel.");
        format!("sysctl {name:?} is not allowed as it conflicts with the OCI {field:?} field")
    } else {
        return None;
    })
}

/// `a[3].b` as `a[].b`.
fn without_indices(at: &str) -> String {
    let mut place = String::with_capacity(at.len());
    let mut inside = false;
    for c in at.chars() {
        inside = (inside || c == '[') && c != ']';
        if !inside || c == '[' {
            place.push(c);
        }
    }
    place
}

/// The number that a message begins with.
fn number(message: &str) -> &str {
    message.split(|c: char| c != '-' && !c.is_ascii_digit()).find(|word| !word.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_does_not_fit_is_said_in_the_words_engines_look_for() {
        for (verb, found, words) in [
            ("start", Status::Running, "cannot start an already running container"),
            ("start", Status::Stopped, "cannot start a container that has stopped"),
            ("start", Status::Paused, "cannot start a container in the paused state"),
            ("exec", Status::Stopped, "cannot exec in a stopped container"),
            ("exec", Status::Paused, "cannot exec in a paused container (use --ignore-paused to override)"),
            ("delete", Status::Running, "cannot delete container c that is not stopped: running"),
            ("resume", Status::Running, "container not paused"),
            ("pause", Status::Stopped, "container not running"),
            ("update", Status::Stopped, "container not running"),
            ("checkpoint", Status::Created, "Container cannot be checkpointed in created state"),
        ] {
            let text = of_state(verb, "c", found);
            assert!(text.starts_with(words), "{verb} {found}: {text}");
        }
    }

    #[test]
    fn problems_of_a_config_begin_with_the_words_for_them() {
        let config = |more: &str| {
            let text = concat!(
                r#"{"ociVersion":"1.2.0","root":{"path":"r"},"process":{"args":["a"],"cwd":"/","#,
                r#""user":{"uid":0,"gid":0}},"linux":{"namespaces":[{"type":"pid"}]}}"#
            );
            let mut spec: serde_json::Value = serde_json::from_str(text).unwrap();
            let (path, value) = more.split_once('=').unwrap();
            let mut place = &mut spec;
            for part in path.split('.') {
                place = &mut place[part];
            }
            *place = serde_json::from_str(value).unwrap();
            crate::Config::parse(spec.to_string().as_bytes()).unwrap_err().to_string()
        };
        for (change, words) in [
            ("root=null", "root must be specified"),
            ("process.args=[]", "args must not be empty"),
            ("process.cwd=\"\"", "Cwd property must not be empty"),
            ("process.cwd=\"x\"", "Cwd must be an absolute path"),
            ("process.rlimits=[{\"type\":\"R\",\"soft\":1,\"hard\":1}]", "wrong rlimit value: R"),
            ("process.scheduler={\"policy\":\"S\"}", "invalid scheduler policy: S"),
            ("process.scheduler={\"policy\":\"SCHED_OTHER\",\"nice\":99}", "invalid scheduler.nice: 99"),
            ("process.ioPriority={\"class\":\"I\",\"priority\":1}", "invalid ioPriority.Class: \"I\""),
            ("process.execCPUAffinity={\"initial\":\"x\"}", "bad CPUAffinity.Initial"),
            (
                concat!(
                    r#"mounts=[{"destination":"/x","type":"bind","source":"/usr","#,
                    r#""uidMappings":[{"containerID":0,"hostID":0,"size":1}]}]"#
                ),
                "id-mapped mounts must have both uid and gid mappings specified",
            ),
            ("hostname=\"h\"", "unable to set hostname without a private UTS namespace"),
            ("linux.namespaces=[{\"type\":\"x\"}]", "namespace {\"x\" \"\"} does not exist"),
            (
                "linux.namespaces=[{\"type\":\"pid\"},{\"type\":\"pid\"}]",
                "malformed spec file: duplicated ns {\"pid\" \"\"}",
            ),
            ("linux.namespaces=[{\"type\":\"user\"}]", "user namespaces enabled, but no uid mappings found"),
            ("linux.rootfsPropagation=\"x\"", "rootfsPropagation=x is not supported"),
            ("linux.personality={\"domain\":\"x\"}", "invalid personality domain x"),
            ("linux.memoryPolicy={\"mode\":\"x\"}", "invalid memory policy mode: x"),
            ("linux.seccomp={\"defaultAction\":\"x\"}", "string x is not a valid action for seccomp"),
            (
                "linux.seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\",\"architectures\":[\"x\"]}",
                "string x is not a valid arch for seccomp",
            ),
            ("linux.sysctl={\"vm.x\":\"1\"}", "sysctl \"vm.x\" is not in a separate kernel namespace"),
            ("linux.sysctl={\"net.x\":\"1\"}", "sysctl \"net.x\" not allowed in host network namespace"),
            ("linux.devices=[{\"path\":\"/dev/x\",\"type\":\"q\"}]", "invalid device type \"q\""),
        ] {
            let text = config(change);
            assert!(text.starts_with(&format!("{words}: invalid config: ")), "{change}: {text}");
        }
    }
}
