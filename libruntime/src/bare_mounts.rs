//! A mount namespace of the host that has next to no mounts.
//!
//! A new mount namespace is a copy of the caller's, which costs as much as that has mounts. One that begins as a copy of
//! this one costs the same on every host. The kernel's thread `kdevtmpfs` makes it when the host starts, with one mount
//! (two on old kernels). It is never changed, only copied.

use crate::state;
use crate::sys;
use nix::fcntl::{OFlag, readlink};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;

/// `PF_KTHREAD`: no program can set it.
const KERNEL_THREAD: u64 = 0x20_0000;

/// Opens it. There is none for a caller that is not the host's root, and in a pid namespace of its own, where process 2
/// is not `kthreadd`.
pub(crate) fn find() -> Option<OwnedFd> {
    let hosts = namespace_of(2)?;
    let differs = |pid: &i32| namespace_of(*pid).is_some_and(|namespace| namespace != hosts);
    let pid = candidates(usable_cpus()).filter(differs).find(|pid| is_kdevtmpfs(*pid))?;
    sys::open(Path::new(&path_of(pid)), OFlag::O_RDONLY).ok()
}

/// Processes that it may be, the likeliest first. Nothing tells its number: the kernel starts it after some others and five
/// to seven for each CPU.
fn candidates(cpus: i32) -> impl Iterator<Item = i32> {
    let likeliest = 14 + 6 * cpus;
    let furthest = 20 + cpus;
    let around = (1..=furthest).flat_map(move |distance| [likeliest - distance, likeliest + distance]);
    std::iter::once(likeliest).chain(around).filter(|pid| *pid > 2)
}

/// All of the host's, for most callers.
fn usable_cpus() -> i32 {
    let usable = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    (0..CpuSet::count()).filter(|cpu| usable.is_set(*cpu) == Ok(true)).count() as i32
}

fn path_of(pid: i32) -> String {
    format!("/proc/{pid}/ns/mnt")
}

fn namespace_of(pid: i32) -> Option<OsString> {
    readlink(path_of(pid).as_str()).ok()
}

fn is_kdevtmpfs(pid: i32) -> bool {
    let stat = state::stat(pid).ok().flatten();
    stat.is_some_and(|stat| stat.name == "kdevtmpfs" && stat.flags & KERNEL_THREAD != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CPUs and the thread's number, as seen on Linux 6.1, 6.18 and 7.2.
    #[test]
    fn the_thread_is_among_the_candidates() {
        const OF_6_1: [(i32, i32); 7] = [(1, 20), (2, 26), (3, 32), (4, 38), (8, 60), (16, 97), (32, 178)];
        const OF_6_18: [(i32, i32); 1] = [(2, 25)];
        const OF_7_2: [(i32, i32); 6] = [(1, 23), (2, 30), (3, 37), (4, 44), (8, 69), (16, 121)];
        for (cpus, pid) in [&OF_6_1[..], &OF_6_18, &OF_7_2].concat() {
            let position = candidates(cpus).position(|candidate| candidate == pid);
            assert!(position.is_some_and(|position| position < 60), "{cpus}: {position:?}");
        }
        assert!(candidates(1).all(|pid| pid > 2));
    }

    /// Whatever else has a mount namespace of its own, and in whichever order they were made.
    #[test]
    #[ignore = "needs root"]
    fn the_namespace_is_that_of_the_kernels_thread() {
        let Some(found) = find() else {
            let hosts = state::stat(2).unwrap().is_some_and(|stat| stat.name == "kthreadd");
            return assert!(!hosts, "the host has a kdevtmpfs, and it is not found");
        };
        use std::os::fd::AsRawFd;
        let found = readlink(format!("/proc/self/fd/{}", found.as_raw_fd()).as_str()).unwrap();
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let owner = pids.into_iter().find(|pid| namespace_of(*pid).as_ref() == Some(&found)).unwrap();
        assert!(is_kdevtmpfs(owner), "process {owner}");
    }
}
