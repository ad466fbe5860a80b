//! The processor time of a shim and of everything that it starts: that of a cgroup, which counts what its descendants
//! use, also those that are gone. cpuacct of cgroup v1, `cpu.stat` of v2.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command};

use crate::cgroups::Hierarchy;

pub struct Account {
    /// The directory of the bench in the hierarchy that counts.
    root: PathBuf,
    /// Where this process is by itself.
    home: PathBuf,
    is_v2: bool,
}

impl Account {
    /// `name` is the directory of the bench, which exists.
    pub fn new(hierarchies: &[Hierarchy], name: &str) -> Result<Self, String> {
        let counts = |one: &&Hierarchy| {
            one.v1.as_deref().is_some_and(|list| list.split(',').any(|controller| controller == "cpuacct"))
        };
        let found = hierarchies.iter().find(counts).or(hierarchies.iter().find(|one| one.v1.is_none()));
        let hierarchy = found.ok_or("no cgroup hierarchy counts processor time")?;
        let own = fs::read_to_string("/proc/self/cgroup").map_err(|e| format!("/proc/self/cgroup: {e}"))?;
        let is_own = |line: &&str| match (&hierarchy.v1, line.split(':').nth(1)) {
            (Some(controllers), Some(list)) => list == controllers,
            (None, Some(list)) => list.is_empty(),
            _ => false,
        };
        let path = own.lines().find(is_own).and_then(|line| line.splitn(3, ':').nth(2)).unwrap_or("/");
        let home = hierarchy.mount.join(path.trim_start_matches('/')).join("cgroup.procs");
        Ok(Self { root: hierarchy.mount.join(name), home, is_v2: hierarchy.v1.is_none() })
    }

    /// Makes the group of a contestant. Its shims are in one below: a cgroup of v2 with processes has no controllers for
    /// those below it.
    pub fn make(&self, contestant: &str) -> Result<(), String> {
        let dir = self.root.join(contestant).join("shim");
        fs::create_dir_all(&dir).map_err(|e| format!("mkdir {}: {e}", dir.display()))
    }

    /// Starts a command in the contestant's group. This process goes there and comes back: what it uses between, which is
    /// the same for all, counts as the contestant's.
    pub fn spawn(&self, contestant: &str, command: &mut Command) -> io::Result<Child> {
        fs::write(self.root.join(contestant).join("shim/cgroup.procs"), "0")?;
        let child = command.spawn();
        fs::write(&self.home, "0")?;
        child
    }

    /// This process, and what it starts from now on, goes there.
    pub fn join(&self, contestant: &str) -> io::Result<()> {
        fs::write(self.root.join(contestant).join("shim/cgroup.procs"), "0")
    }

    /// And back.
    pub fn leave(&self) {
        let _ = fs::write(&self.home, "0");
    }

    pub fn processes(&self, contestant: &str) -> Vec<u32> {
        let path = self.root.join(contestant).join("shim/cgroup.procs");
        let pids = fs::read_to_string(path).unwrap_or_default();
        pids.lines().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// Milliseconds; of all contestants, and of what is beside them, for an empty name.
    pub fn used(&self, contestant: &str) -> Result<f64, String> {
        let file = if self.is_v2 { "cpu.stat" } else { "cpuacct.usage" };
        let path = self.root.join(contestant).join(file);
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let (number, unit) = match self.is_v2 {
            true => (text.lines().find_map(|line| line.strip_prefix("usage_usec ")), 1e3),
            false => (Some(text.trim()), 1e6),
        };
        let number = number.and_then(|number| number.parse::<f64>().ok());
        number.map(|number| number / unit).ok_or_else(|| format!("{}: {text:?}", path.display()))
    }
}
