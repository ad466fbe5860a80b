//! What a failed step means: its object as a reader would name it, and what to do about it.

use crate::error::Error;
use crate::plan::Text;
use crate::step::{NamespaceFlags, Step};
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
    if let Step::Exec { args, paths, .. } | Step::FindProgram { args, paths } = step {
        return program(args, paths, origin, errno);
    }
    let object = match (object(step), from) {
        (object, None) => object,
        (object, Some(from)) if object.is_empty() => from,
        (object, Some(from)) => format!("{from} at {object}"),
    };
    let what = if object.is_empty() { call.to_string() } else { format!("{call} {object}") };
    let mut error = Error::os(what, errno);
    if !origin.is_empty() {
        error = error.at(origin.to_string());
    }
    match hint(step, call, errno) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// Engines tell these apart by their words (docker and podman exit with 127 or 126).
fn program(args: &Text, paths: &Text, origin: &str, errno: Errno) -> Error {
    let name = args.first();
    let searched = !name.contains('/');
    let what = match errno {
        Errno::ENOENT if searched => "executable file not found in $PATH".to_string(),
        _ => lower(errno.desc()),
    };
    let error = Error::os_said(format!("exec {name:?}: {what}"), errno).at(origin.to_string());
    match errno {
        Errno::ENOENT if searched => error.with_hint(format!("looked for {}", paths.joined())),
        Errno::ENOENT => {
            error.with_hint("is the path right, and the interpreter or loader it names in the root?")
        }
        Errno::EACCES => error.with_hint(
            "it must be a file with permission to execute for this user, on a mount without noexec",
        ),
        Errno::ENOEXEC => {
            error.with_hint("it is no program of this machine's architecture, or a script without #!")
        }
        _ => error,
    }
}

fn lower(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

/// What the step is about.
fn object(step: &Step<Text>) -> String {
    use Step::*;
    match step {
        WriteProcess { path, .. } | WriteSysctl { path, .. } => format!("/proc/{}", path.first()),
        OpenSource { host_path, .. }
        | OpenIdmapped { host_path, .. }
        | OpenDevice { host_path, .. }
        | PrivateParent { host_path }
        | AttachRootfs { host_path, .. }
        | AttachRootfsInScratch { host_path, .. } => host_path.first(),
        Mount { fstype, target, .. } | MountByText { fstype, target, .. } => {
            format!("{} at {}", fstype.first(), target.first())
        }
        MountProcfs { target, .. } => format!("proc at {}", target.first()),
        MoveMount { target, .. } | SetAttributes { target, .. } => target.first(),
        MakeNode { path, .. }
        | Symlink { path, .. }
        | MaskPath { path, .. }
        | ReadonlyPath { path }
        | OpenRoot { path }
        | Chdir { path, .. } => path.first(),
        JoinCgroup { tasks, .. } => tasks.first(),
        SetHostname { name } | SetDomainname { name } => name.first(),
        Setns { namespaces, .. } | Unshare { namespaces } | Clone { namespaces } => {
            namespace_names(*namespaces)
        }
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

/// Only what is truly known.
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
        (SetIds { .. }, _, Errno::EINVAL) => "the id is not in the user namespace's map",
        (Clone { .. } | Unshare { .. }, _, Errno::ENOSPC) => {
            "a limit of sysctl user.max_*_namespaces is reached"
        }
        (JoinSessionKeyring { .. }, _, Errno::EDQUOT) => {
            "the quota is sysctl kernel.keys.maxkeys; or use --no-new-keyring"
        }
        _ => return mount_hint(step, call, errno),
    })
}

fn mount_hint(step: &Step<Text>, call: &str, errno: Errno) -> Option<&'static str> {
    use Step::*;
    Some(match (step, call, errno) {
        (OpenSource { .. } | OpenIdmapped { .. }, _, Errno::ENOENT) => {
            "bind sources are not created; create it on the host"
        }
        (OpenIdmapped { .. }, "mount_setattr", Errno::EINVAL) => {
            "the source's filesystem does not support id-mapped mounts on this kernel"
        }
        (OpenDevice { .. }, "statx", Errno::ENODEV) => "the host's node is not this device",
        (AttachRootfs { .. } | AttachRootfsInScratch { .. }, _, Errno::ENOENT) => {
            "root.path must exist in the bundle"
        }
        (AttachRootfs { .. } | AttachRootfsInScratch { .. }, _, Errno::ENOTDIR | Errno::ELOOP) => {
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
            "the filesystem does not take one of these options, or not this value"
        }
        (Mount { .. } | MountProcfs { .. }, "fsconfig", Errno::EPERM) => {
            "a filesystem like this needs a namespace of the container's own (network for sysfs, pid for proc, ipc for mqueue)"
        }
        (Mount { .. } | MoveMount { .. }, "move_mount", Errno::ENOTDIR) => {
            "the source is a directory and the destination is none"
        }
        (MoveMount { .. }, "move_mount", Errno::EISDIR) => {
            "the source is no directory and the destination is one"
        }
        (MakeNode { .. }, "unlinkat", Errno::EISDIR) => "there is a directory at this path already",
        (CloneSource { .. } | FetchSource { .. }, "mount_setattr", Errno::EPERM) => {
            "the source is mounted with a restriction that a user namespace cannot lift, such as ro"
        }
        _ => return None,
    })
}
