//! The error of a failed step: what it worked on, as a reader would name it, and what to do about it.

use crate::error::Error;
use crate::plan::Text;
use crate::step::{NamespaceFlags, Step};
use crate::words;
use nix::errno::Errno;

/// The error for `step`, which failed in the system call `call`.
/// `from` is the host's path of what is mounted.
pub(crate) fn render(
    step: &Step<Text>,
    from: Option<String>,
    origin: &str,
    call: &str,
    errno: Errno,
) -> Error {
    match step {
        Step::Exec { paths, .. } if origin.starts_with("hooks.") => {
            return program(format!("fork/exec {}", paths.first()), origin, errno);
        }
        Step::Exec { args, paths, .. } => return executed(&args.first(), paths, false, origin, errno),
        Step::ExecFd { .. } => return given_program(origin, errno),
        Step::EnterCgroup { .. } if is_of_cgroup(errno) => return into_cgroup(errno),
        Step::FindProgram { args, paths } => return executed(&args.first(), paths, true, origin, errno),
        _ => {}
    }
    let object = match (object(step), from.clone()) {
        (object, None) => object,
        (object, Some(from)) if object.is_empty() => from,
        (object, Some(from)) => format!("{from} at {object}"),
    };
    let what = if object.is_empty() { call.to_string() } else { format!("{call} {object}") };
    let mut error = Error::os(what, errno);
    if !origin.is_empty() {
        error = error.at(origin.to_string());
    }
    if let Some(words) = words_of(step, from.as_deref(), origin, errno) {
        error = error.within(words);
    }
    match hint(step, call, errno) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// Whether a failure of clone3(2) is about the cgroup: other causes have other error numbers.
pub(crate) fn is_of_cgroup(errno: Errno) -> bool {
    matches!(errno, Errno::EBUSY | Errno::EOPNOTSUPP | Errno::ENOENT | Errno::ENODEV | Errno::EACCES)
}

/// The error of a clone that the container's cgroup does not accept.
pub(crate) fn into_cgroup(errno: Errno) -> Error {
    let error = Error::os("clone3 into the container's cgroup", errno).at("linux.cgroupsPath");
    match errno {
        Errno::EBUSY | Errno::EOPNOTSUPP => error.with_hint(
            "a cgroup with controllers enabled for its children accepts no processes; choose another path",
        ),
        _ => error,
    }
}

/// The error of executing a program that was given by descriptor: the file itself exists.
fn given_program(origin: &str, errno: Errno) -> Error {
    let error = Error::os("execveat of the given program", errno).at(origin);
    match errno {
        Errno::ENOENT => error.with_hint(
            "its interpreter (ld.so) is not in the container; link it statically, or mount what it needs",
        ),
        Errno::ENOEXEC => error.with_hint("it is not a program for this machine"),
        _ => error,
    }
}

/// Engines tell these errors apart by their words (docker and podman exit with 127 or 126).
fn executed(name: &str, paths: &Text, looked_for: bool, origin: &str, errno: Errno) -> Error {
    let what = match errno {
        Errno::ENOENT if !name.contains('/') => {
            let message = format!("exec: {name:?}: executable file not found in $PATH");
            let error = Error::os_said(message, errno).at(origin);
            return match paths.joined() {
                _ if name.is_empty() => error,
                none if none.is_empty() => error.with_hint("its environment has no PATH to look in"),
                paths => error.with_hint(format!("looked for {paths}")),
            };
        }
        Errno::ENOENT if looked_for => format!("exec: {name:?}: stat {name}"),
        Errno::ENOENT | Errno::EACCES => format!("exec: {name:?}"),
        _ => format!("exec {name}"),
    };
    program(what, origin, errno)
}

fn program(what: String, origin: &str, errno: Errno) -> Error {
    let error = Error::os_said(format!("{what}: {}", words::of_errno(errno)), errno).at(origin);
    match errno {
        Errno::ENOENT => {
            error.with_hint("is the path right, and the interpreter or loader it names in the root?")
        }
        Errno::EACCES => error.with_hint(
            "it must be a file with permission to execute for this user, on a mount without noexec",
        ),
        Errno::ENOEXEC => {
            error.with_hint("it is not a program for this machine's architecture, or a script without #!")
        }
        _ => error,
    }
}

/// The words by which engines know the fault (words.rs).
fn words_of(step: &Step<Text>, from: Option<&str>, origin: &str, errno: Errno) -> Option<String> {
    use Step::*;
    if origin.starts_with("mounts[")
        && let Some(mounting) = mounting(step, from)
    {
        let special = match step {
            Mount { fstype, strict: true, .. } if matches!(errno, Errno::ELOOP | Errno::ENOTDIR) => {
                format!(": filesystem {:?} must be mounted on ordinary directory", fstype.first())
            }
            _ => String::new(),
        };
        return Some(mounting + &special);
    }
    let text = words::of_errno(errno);
    Some(match step {
        CloneRootfs { host_path, .. } => {
            format!("invalid rootfs: stat {}: {text}", host_path.first())
        }
        Chdir { path, .. } => {
            format!("chdir to cwd ({:?}) set in config.json failed: {text}", path.first())
        }
        SetRlimit { resource, .. } => {
            format!("error setting rlimits for ready process: error setting rlimit type {resource}: {text}")
        }
        SetScheduler { .. } => format!("error setting scheduler: {text}"),
        SetIoPriority { .. } => format!("failed to set io priority: {text}"),
        SetMemoryPolicy { .. } => format!("error setting memory policy: {text}"),
        SetAffinity { .. } => format!("failed to set CPU affinity: {text}"),
        SetSeccomp { .. } => format!("unable to init seccomp: {text}"),
        SetIds { .. } | SetGroups { .. } if origin.starts_with("process.user") => {
            format!("unable to setup user: {text}")
        }
        WriteProcess { path, .. } if path.first().ends_with("attr/exec") && origin.contains("apparmor") => {
            format!("unable to apply apparmor profile: {text}")
        }
        WriteSysctl { value, .. } => {
            let key = origin.trim_start_matches("linux.sysctl[").trim_end_matches(']');
            format!("failed to write sysctl {key} = {:?}", value.first())
        }
        OpenConsole { .. } | MountConsole | UseConsole => format!("error setting up the console: {text}"),
        _ => return None,
    })
}

/// The words for a step of a mount: what is mounted, and where, as far as the step knows both.
fn mounting(step: &Step<Text>, from: Option<&str>) -> Option<String> {
    use Step::*;
    Some(match step {
        OpenSource { host_path, .. } | OpenTree { host_path, .. } | OpenIdmapped { host_path, .. } => {
            format!("error mounting {:?} to rootfs", host_path.first())
        }
        Mount { fstype, target, .. } | MountByText { fstype, target, .. } => {
            format!("error mounting {:?} to rootfs at {:?}", fstype.first(), target.first())
        }
        MoveMount { target, .. } => {
            let source = from.map(|from| format!(" {from:?}")).unwrap_or_default();
            format!("error mounting{source} to rootfs at {:?}", target.first())
        }
        _ => return None,
    })
}

/// What the step is about.
fn object(step: &Step<Text>) -> String {
    use Step::*;
    match step {
        WriteProcess { path, .. } | WriteSysctl { path, .. } => format!("/proc/{}", path.first()),
        OpenSource { host_path, .. }
        | OpenTree { host_path, .. }
        | OpenIdmapped { host_path, .. }
        | OpenDevice { host_path, .. }
        | PrivateParent { host_path }
        | CloneRootfs { host_path, .. } => host_path.first(),
        Mount { fstype, target, .. } | MountByText { fstype, target, .. } => {
            format!("{} at {}", fstype.first(), target.first())
        }
        MountProcfs { target, .. } => format!("proc at {}", target.first()),
        MoveMount { target, .. } | Unmount { target } => target.first(),
        SetAttributes { place, .. } | MaskPath { place, .. } | ReadonlyPath { place, .. } => {
            place.path.first()
        }
        MakeNode { path, .. } | Symlink { path, .. } | OpenRoot { path } | Chdir { path, .. } => path.first(),
        JoinCgroup { tasks, .. } => tasks.first(),
        SetHostname { name } | SetDomainname { name } => name.first(),
        Setns { namespaces, .. }
        | Unshare { namespaces }
        | Clone { namespaces }
        | StartIn { namespaces }
        | EnterCgroup { namespaces, .. } => namespace_names(*namespaces),
        SetRlimit { resource, soft, hard } => format!("resource {resource}, soft {soft}, hard {hard}"),
        SetIds { uid, gid } => format!("to user {uid} and group {gid}"),
        OpenConsole { .. } => "/dev/pts/ptmx".into(),
        MountConsole => "/dev/console".into(),
        _ => String::new(),
    }
}

fn namespace_names(flags: NamespaceFlags) -> String {
    if flags.0 == 0 { String::new() } else { format!("{flags:?} namespace") }
}

/// A hint, only where the cause is certain.
fn hint(step: &Step<Text>, call: &str, errno: Errno) -> Option<&'static str> {
    use Step::*;
    Some(match (step, call, errno) {
        (Chdir { .. }, "openat2", Errno::ELOOP) => {
            "process.cwd leads through a magic link, which could lie outside the container"
        }
        (Chdir { .. }, "openat2", Errno::ENOENT) => "the directory is not in the container; exec makes none",
        (OpenConsole { .. }, _, Errno::ENOENT | Errno::ENODEV) => {
            "a terminal needs a devpts mount at /dev/pts"
        }
        (SetRlimit { .. }, _, Errno::EPERM) => "raising a hard limit needs CAP_SYS_RESOURCE",
        (WriteProcess { .. }, "write", Errno::EACCES) => "lowering the score needs CAP_SYS_RESOURCE",
        (WriteSysctl { .. }, "openat2", Errno::ENOENT) => "this kernel has no such sysctl in this namespace",
        (JoinCgroup { .. }, _, Errno::EINVAL) => "a realtime process needs resources.cpu.realtimeRuntime",
        (SetSeccomp { .. }, _, Errno::EINVAL) => {
            "this kernel does not know one of the filter's flags or actions"
        }
        (SetSeccomp { .. }, _, Errno::EBUSY) => "only one filter of a process can have a listener",
        (SetGroups { .. }, _, Errno::EPERM) => {
            "a user namespace with setgroups denied has no supplementary groups"
        }
        (SetIds { .. } | SetGroups { .. }, _, Errno::EINVAL)
        | (OpenConsole { .. }, "fchownat", Errno::EINVAL) => "the id is not in the user namespace's map",
        (StartIn { .. } | EnterCgroup { .. } | Clone { .. } | Unshare { .. }, _, Errno::ENOSPC) => {
            "a limit of sysctl user.max_*_namespaces is reached"
        }
        (JoinSessionKeyring { .. }, _, Errno::EDQUOT) => {
            "the quota is sysctl kernel.keys.maxkeys; or create the container in the caller's keyring"
        }
        _ => return mount_hint(step, call, errno),
    })
}

fn mount_hint(step: &Step<Text>, call: &str, errno: Errno) -> Option<&'static str> {
    use Step::*;
    Some(match (step, call, errno) {
        (OpenSource { .. } | OpenTree { .. } | OpenIdmapped { .. }, _, Errno::ENOENT) => {
            "bind sources are not created; create it on the host"
        }
        (OpenIdmapped { .. }, "mount_setattr", Errno::EINVAL) => {
            "the source's filesystem does not support id-mapped mounts on this kernel"
        }
        (OpenDevice { .. }, "statx", Errno::ENODEV) => "the host's node is not this device",
        (CloneRootfs { .. }, _, Errno::ENOENT) => "root.path must exist in the bundle",
        (CloneRootfs { .. }, _, Errno::ENOTDIR | Errno::ELOOP) => {
            "root.path must be a directory, not a file or a symbolic link"
        }
        (Mount { strict: true, .. } | MountProcfs { .. }, "openat2", Errno::ELOOP) => {
            "the destination has a symbolic link in it, which an image could use to hide where procfs or sysfs goes"
        }
        (_, "mkdirat" | "mknodat", Errno::EROFS) => {
            "the destination is missing and its filesystem is read-only; make it in the image, or mount something writable there first"
        }
        (Mount { .. } | MountByText { .. }, "fsopen" | "mount", Errno::ENODEV) => {
            "this kernel has no filesystem of this type"
        }
        (Mount { .. } | MountProcfs { .. } | MountByText { .. }, "fsconfig" | "mount", Errno::EINVAL) => {
            "the filesystem does not accept one of these options, or its value"
        }
        (Mount { .. } | MountProcfs { .. }, "fsconfig", Errno::EPERM) => {
            "a filesystem like this needs a namespace of the container's own (network for sysfs, pid for proc, ipc for mqueue)"
        }
        (Mount { .. } | MoveMount { .. }, "move_mount", Errno::ENOTDIR) => {
            "the source is a directory, and the destination is not"
        }
        (MoveMount { .. }, "move_mount", Errno::EISDIR) => {
            "the source is not a directory, and the destination is one"
        }
        (MoveRoot, _, Errno::EBUSY) => {
            "a procfs or sysfs of the host lies hidden in this mount namespace, where nothing can be mounted over it; use pivot_root(2), which this container is created without"
        }
        (MakeNode { .. }, "unlinkat", Errno::EISDIR) => "there is a directory at this path already",
        (
            CloneSource { .. } | SetSourceAttributes { .. } | FetchSource { .. },
            "mount_setattr",
            Errno::EPERM,
        ) => "the source is mounted with a restriction that a user namespace cannot lift, such as ro",
        _ => return None,
    })
}
