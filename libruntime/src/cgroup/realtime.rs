//! v1 with CONFIG_RT_GROUP_SCHED: a cgroup needs a realtime budget at least as large as that of each cgroup below it,
//! and a new cgroup has none.
//!
//! Raises the budgets of the cgroups above a container's, from the top down, but never that of the root of the
//! hierarchy, which is the host's own. Must not lower anything: a budget stays with the cgroups above for the next
//! container. See the kernel's `Documentation/scheduler/sched-rt-group.rst`.

use super::files;
use super::hierarchy::Hierarchy;
use super::write::Journal;
use crate::error::{Error, Result};
use nix::errno::Errno;
use std::path::{Path, PathBuf};

const RUNTIME: &str = "cpu.rt_runtime_us";
const PERIOD: &str = "cpu.rt_period_us";
/// Finer than the kernel, which compares fractions of 2^20, rounded down: a budget that is enough here is enough there.
const WHOLE: u128 = 1 << 40;
const HINT: &str = "sysctl kernel.sched_rt_runtime_us is the budget of the whole host";

/// To be called before the container's own files are written. `period` is the container's new period, if that changes.
pub(super) fn raise_parent_budgets(
    hierarchy: &Hierarchy,
    runtime: i64,
    period: Option<u64>,
    journal: &mut Journal,
) -> Result<()> {
    let Ok(runtime) = u64::try_from(runtime) else { return Ok(()) };
    let own = read(&hierarchy.dir, PERIOD)?;
    // Without the kernel option there are no files; writing the container's own gives the error.
    let Some(own) = own.and_then(|own| u64::try_from(own).ok()) else { return Ok(()) };
    let mut needed = share(runtime, period.unwrap_or(own));
    let mut raises: Vec<(PathBuf, i64, u64)> = Vec::new();
    let mut below = hierarchy.dir.as_path();
    let ancestors = hierarchy.dir.ancestors().skip(1).take_while(|dir| *dir != hierarchy.mount);
    for dir in ancestors {
        let others: u128 = files::children(dir).iter().filter(|child| *child != below).map(|c| of(c)).sum();
        let (runtime, period) = (read(dir, RUNTIME)?.unwrap_or(-1), read(dir, PERIOD)?.unwrap_or(1));
        if runtime >= 0 && of(dir) < needed + others {
            let period = u64::try_from(period).unwrap_or(1);
            let raised = ((needed + others) * u128::from(period)).div_ceil(WHOLE) as u64;
            raises.push((dir.join(RUNTIME), runtime, raised));
            needed = share(raised, period);
        } else {
            // It has enough, and so have those above it.
            break;
        }
        below = dir;
    }
    for (path, old, raised) in raises.iter().rev() {
        files::write(path, &raised.to_string()).map_err(|errno| {
            Error::os(format!("write {raised} to {}", path.display()), errno).with_hint(HINT)
        })?;
        if let Some(journal) = journal {
            journal.push((path.clone(), old.to_string()));
        }
    }
    Ok(())
}

fn share(runtime: u64, period: u64) -> u128 {
    u128::from(runtime) * WHOLE / u128::from(period.max(1))
}

/// The budget of a cgroup; one that is gone has none.
fn of(dir: &Path) -> u128 {
    let number = |name| read(dir, name).ok().flatten().and_then(|value| u64::try_from(value).ok());
    match (number(RUNTIME), number(PERIOD)) {
        (Some(runtime), Some(period)) => share(runtime, period),
        _ => 0,
    }
}

fn read(dir: &Path, name: &str) -> Result<Option<i64>> {
    let path = dir.join(name);
    match files::read(&path) {
        Ok(text) => Ok(text.trim_end().parse().ok()),
        Err(Errno::ENOENT | Errno::ENODEV) => Ok(None),
        Err(errno) => Err(files::failed("read", &path, errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::files::tests::Scratch;
    use std::fs;

    /// Plain files stand for the kernel's.
    fn group(dir: &Path, runtime: i64, period: u64) {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join(RUNTIME), format!("{runtime}\n")).unwrap();
        fs::write(dir.join(PERIOD), format!("{period}\n")).unwrap();
    }

    #[test]
    fn what_is_missing_is_added_on_the_way_down_and_no_more() {
        let scratch = Scratch::new("realtime");
        let mount = scratch.0.clone();
        let dirs = ["a", "a/b", "a/b/c", "a/b/other", "a/sibling"].map(|name| mount.join(name));
        group(&mount, 950_000, 1_000_000);
        for (dir, runtime) in dirs.iter().zip([50_000, 0, 0, 20_000, 30_000]) {
            group(dir, runtime, 1_000_000);
        }
        let cpu = Hierarchy { mount, dir: dirs[2].clone(), controllers: vec!["cpu".into()] };
        let mut journal = Some(Vec::new());
        raise_parent_budgets(&cpu, 10_000, None, &mut journal).unwrap();
        let runtime = |at: usize| read(&dirs[at], RUNTIME).unwrap().unwrap();
        let budgets = [0, 1, 2, 3, 4].map(runtime);
        assert_eq!(budgets, [60_000, 30_000, 0, 20_000, 30_000], "its own is written by the caller");
        let undo: Vec<_> = journal.unwrap().into_iter().map(|(_, old)| old).collect();
        assert_eq!(undo, ["50000", "0"]);
        let before = budgets;
        raise_parent_budgets(&cpu, 10_000, None, &mut None).unwrap();
        assert_eq!([0, 1, 2, 3, 4].map(runtime), before, "there is enough now");
    }

    #[test]
    fn without_the_files_nothing_is_done() {
        let scratch = Scratch::new("no-realtime");
        let cpu = Hierarchy { mount: scratch.0.clone(), dir: scratch.0.join("a/b"), controllers: vec![] };
        raise_parent_budgets(&cpu, 10_000, None, &mut None).unwrap();
        raise_parent_budgets(&cpu, -1, None, &mut None).unwrap();
    }
}
