//! What one process has of the machine: memory in KiB by `/proc/PID/smaps_rollup`, threads and descriptors.

use std::fs;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Use {
    pub resident: u64,
    /// Each page divided by the number of those that share it.
    pub proportional: u64,
    /// Written, and nobody shares it.
    pub private_dirty: u64,
    pub threads: u64,
    pub descriptors: u64,
}

impl Use {
    pub fn of(pid: u32) -> Result<Self, String> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let rollup = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
        let kib = |name: &str| {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            number.ok_or_else(|| format!("{path} has no {name}"))
        };
        let count = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            fs::read_dir(&path).map(|entries| entries.count() as u64).map_err(|e| format!("{path}: {e}"))
        };
        Ok(Self {
            resident: kib("Rss:")?,
            proportional: kib("Pss:")?,
            private_dirty: kib("Private_Dirty:")?,
            threads: count("task")?,
            descriptors: count("fd")?,
        })
    }
}
