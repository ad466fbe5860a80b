//! Invariant "no second resolution": every system call of the stage is traced, and none has a path
//! that the container could have changed since. The tracer is a small one of our own (ptrace(2)).

use super::bundle::{Bundle, config, new_id, turn};
use super::roles;
use serde_json::json;
use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// A system call of the stage as it is entered.
#[derive(Debug)]
struct Call {
    nr: i64,
    args: [u64; 6],
    /// The texts at the arguments that are paths, by position.
    paths: Vec<(usize, String)>,
    /// `open_how.resolve` of openat2(2).
    resolve: u64,
}

/// Calls that take paths, and where.
const PATHS: &[(i64, &[usize])] = &[
    (libc::SYS_openat, &[1]),
    (libc::SYS_openat2, &[1]),
    (libc::SYS_mkdirat, &[1]),
    (libc::SYS_mknodat, &[1]),
    (libc::SYS_symlinkat, &[0, 2]),
    (libc::SYS_unlinkat, &[1]),
    (libc::SYS_readlinkat, &[1]),
    (libc::SYS_fchownat, &[1]),
    (libc::SYS_fchmodat, &[1]),
    (libc::SYS_statx, &[1]),
    (libc::SYS_open_tree, &[1]),
    (libc::SYS_move_mount, &[1, 3]),
    (libc::SYS_mount_setattr, &[1]),
    (libc::SYS_chdir, &[0]),
    (libc::SYS_chroot, &[0]),
    (libc::SYS_umount2, &[0]),
    (libc::SYS_pivot_root, &[0, 1]),
    (libc::SYS_mount, &[0, 1]),
    (libc::SYS_execve, &[0]),
    (libc::SYS_execveat, &[1]),
    (libc::SYS_faccessat, &[1]),
    (libc::SYS_newfstatat, &[1]),
    (libc::SYS_linkat, &[1, 3]),
    (libc::SYS_renameat2, &[1, 3]),
    (libc::SYS_utimensat, &[1]),
];

/// The start of `struct ptrace_syscall_info`.
#[repr(C)]
#[derive(Default)]
struct SyscallInfo {
    op: u8,
    pad: [u8; 3],
    arch: u32,
    instruction: u64,
    stack: u64,
    nr: u64,
    args: [u64; 6],
}

fn ptrace(request: u32, pid: i32, address: usize, data: usize) -> i64 {
    // SAFETY: each caller passes what the request asks for; `data` is a number or points to a live value.
    unsafe { libc::ptrace(request as _, pid, address, data) }
}

/// Runs a program to its end and returns every call that the stage makes meanwhile, in order.
fn trace(mut command: Command) -> Vec<Call> {
    const GET_SYSCALL_INFO: u32 = 0x420e;
    // SAFETY: one system call between fork and exec.
    unsafe {
        command.pre_exec(|| {
            if ptrace(libc::PTRACE_TRACEME, 0, 0, 0) == 0 {
                Ok(())
            } else {
                Err(std::io::Error::last_os_error())
            }
        })
    };
    #[allow(clippy::zombie_processes)] // waitpid(2) below reaps it with all others that are traced
    let child = command.spawn().unwrap();
    let first = child.id() as i32;
    let mut status = 0;
    // SAFETY: `status` is ours.
    unsafe { libc::waitpid(first, &raw mut status, libc::__WALL) };
    let options = libc::PTRACE_O_TRACESYSGOOD
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACEEXEC
        | libc::PTRACE_O_EXITKILL;
    assert_eq!(ptrace(libc::PTRACE_SETOPTIONS, first, 0, options as usize), 0);
    ptrace(libc::PTRACE_SYSCALL, first, 0, 0);
    let (mut calls, mut stages) = (Vec::new(), HashMap::new());
    loop {
        // SAFETY: `status` is ours. All children of this process are traced: tests take turns.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) };
        if pid < 0 {
            return calls;
        }
        if !libc::WIFSTOPPED(status) {
            if pid == first {
                // What is left, a failed start leaves.
                stages.keys().for_each(|pid| kill(*pid));
            }
            stages.remove(&pid);
            continue;
        }
        let mut signal = libc::WSTOPSIG(status);
        if signal == libc::SIGTRAP | 0x80 {
            let mut info = SyscallInfo::default();
            ptrace(GET_SYSCALL_INFO, pid, size_of::<SyscallInfo>(), &raw mut info as usize);
            if info.op == 1 && *stages.entry(pid).or_insert_with(|| is_stage(pid)) {
                calls.push(read_call(pid, &info));
            }
            signal = 0;
        } else if status >> 16 != 0 || signal == libc::SIGSTOP {
            // An event: a new process, or another program in an old one.
            stages.remove(&pid);
            signal = 0;
        }
        ptrace(libc::PTRACE_SYSCALL, pid, 0, signal as usize);
    }
}

fn kill(pid: i32) {
    // A tracee that we have not waited for cannot be another process.
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
}

fn is_stage(pid: i32) -> bool {
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    program.as_os_str().as_encoded_bytes().starts_with(b"/memfd:onggi-stage")
}

fn read_call(pid: i32, info: &SyscallInfo) -> Call {
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let text = |address: u64| {
        let mut bytes = [0u8; 4096];
        let length = memory.read_at(&mut bytes, address).unwrap_or(0);
        let text = bytes[..length].split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    };
    let nr = info.nr as i64;
    let places = PATHS.iter().find(|(known, _)| *known == nr).map_or(&[][..], |(_, places)| places);
    let paths = places.iter().map(|place| (*place, text(info.args[*place]))).collect();
    let mut how = [0u8; 24];
    if nr == libc::SYS_openat2 {
        memory.read_exact_at(&mut how, info.args[2]).unwrap();
    }
    Call { nr, args: info.args, paths, resolve: u64::from_ne_bytes(*how.last_chunk().unwrap()) }
}

const IN_ROOT: u64 = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;

/// What is wrong with a call that is made once the root is open; `None` when nothing is.
fn broken(call: &Call, program: &str) -> Option<String> {
    let complain = |what: &str| Some(format!("{what}: {call:?}"));
    for (place, path) in &call.paths {
        let single = !path.contains('/');
        match call.nr {
            // The kernel keeps these inside the directory, and no link leads out.
            libc::SYS_openat2 => {
                let kept = call.resolve & libc::RESOLVE_BENEATH != 0
                    || call.resolve & IN_ROOT == IN_ROOT
                    || call.resolve & (libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_SYMLINKS)
                        == libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_SYMLINKS;
                if !kept || call.args[0] as i32 == libc::AT_FDCWD {
                    return complain("resolved without a root");
                }
            }
            // The content of a link is not resolved.
            libc::SYS_symlinkat if *place == 0 => {}
            // The user's program, which is only looked for and executed, in the root that the
            // process has been in since pivot_root(2).
            libc::SYS_execve | libc::SYS_faccessat if path == program => {}
            libc::SYS_openat if path == program && call.args[2] & libc::O_PATH as u64 != 0 => {}
            // The root of the process, which only the kernel moves.
            libc::SYS_chdir | libc::SYS_openat if path == "/" => {}
            _ if path.starts_with('/') => return complain("an absolute path"),
            _ if !single => return complain("a path of several components"),
            _ => {}
        }
    }
    let never = [libc::SYS_mount, libc::SYS_newfstatat, libc::SYS_execveat];
    if never.contains(&call.nr)
        || call.paths.iter().any(|(_, path)| path.starts_with("/proc"))
            && call.nr != libc::SYS_openat2
            && call.nr != libc::SYS_symlinkat
    {
        return complain("a call that works by path");
    }
    None
}

/// All kinds of work below the root.
fn busy_config(bundle_directory: &str) -> serde_json::Value {
    let mut config = config("true");
    let mounts = config["mounts"].as_array_mut().unwrap();
    mounts.push(json!({"destination": "/a/b/c", "type": "bind", "source": bundle_directory, "options": ["rbind", "ro"]}));
    mounts.push(json!({"destination": "/etc/hosts", "type": "bind", "source": "/etc/passwd"}));
    mounts.push(json!({"destination": "/copy", "type": "tmpfs", "options": ["tmpcopyup"]}));
    config["process"]["cwd"] = json!("/copy/made/for/us");
    config["process"]["user"]["uid"] = json!(5);
    config["process"]["oomScoreAdj"] = json!(100);
    config["linux"]["devices"] =
        json!([{"path": "/dev/sub/fuse", "type": "c", "major": 10, "minor": 229, "uid": 5}]);
    config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
    config["linux"]["maskedPaths"] = json!(["/proc/kcore", "/proc/acpi", "/proc/keys", "/sys/firmware"]);
    config["root"]["readonly"] = json!(true);
    config["hostname"] = json!("h");
    config
}

fn check(change: impl FnOnce(&mut serde_json::Value)) {
    let bundle = Bundle::new(&config("true"));
    let mut config = busy_config(&bundle.directory.display().to_string());
    change(&mut config);
    bundle.write(&config);
    std::fs::create_dir_all(bundle.rootfs().join("copy/x")).unwrap();
    std::fs::write(bundle.rootfs().join("copy/x/file"), "text").unwrap();
    let id = new_id();
    let mut role = roles::command("create_and_start", &bundle, &id);
    let said = bundle.directory.join("said");
    role.stderr(std::fs::File::create(&said).unwrap());
    let calls = trace(role);
    let container = bundle.load(&id);
    let container =
        container.unwrap_or_else(|_| panic!("{}", std::fs::read_to_string(&said).unwrap_or_default()));
    assert_eq!(container.status(), libruntime::Status::Stopped);
    container.delete().unwrap();
    let rootfs = bundle.rootfs().display().to_string();
    let opened = calls.iter().position(|call| call.nr == libc::SYS_openat && call.paths[0].1 == rootfs);
    let opened = opened.expect("the stage opens the root once");
    let again = calls[opened + 1..]
        .iter()
        .filter(|call| call.paths.iter().any(|(_, path)| path.contains(&rootfs)))
        .count();
    assert_eq!(again, 0, "the root is opened once");
    // Until the host's mounts are left, a path of the host can only lead to what the host has there.
    let left = |call: &Call| call.nr == libc::SYS_setns && call.args[1] == libc::CLONE_NEWNS as u64;
    let after = &calls[calls.iter().position(left).unwrap_or(opened).max(opened) + 1..];
    assert!(after.len() > 60, "only {} calls seen", after.len());
    let wrong: Vec<_> = after.iter().filter_map(|call| broken(call, "/bin/busybox")).collect();
    assert!(wrong.is_empty(), "{} of {} calls:\n{}", wrong.len(), after.len(), wrong.join("\n"));
}

#[test]
#[ignore = "needs root"]
fn after_the_root_is_open_the_stage_uses_no_path_of_the_host() {
    let Some(_turn) = turn() else { return };
    check(|_| {});
}

#[test]
#[ignore = "needs root"]
fn nor_does_it_in_a_user_namespace() {
    let Some(_turn) = turn() else { return };
    check(|config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
        config["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
        config["linux"].as_object_mut().unwrap().remove("devices");
    });
}

/// The rule sees what it is for.
#[test]
fn a_path_that_the_container_could_change_is_seen() {
    let call = |nr, path: &str, resolve| Call {
        nr,
        args: [3, 0, 0, 0, 0, 0],
        paths: vec![(0, path.into())],
        resolve,
    };
    assert!(broken(&call(libc::SYS_openat, "/proc/self/attr/exec", 0), "/p").is_some());
    assert!(broken(&call(libc::SYS_openat2, "/dev/null", 0), "/p").is_some());
    assert!(broken(&call(libc::SYS_mkdirat, "a/b", 0), "/p").is_some());
    assert!(broken(&call(libc::SYS_openat2, "/dev/null", IN_ROOT), "/p").is_none());
    assert!(broken(&call(libc::SYS_execve, "/p", 0), "/p").is_none());
}
