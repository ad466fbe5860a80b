//! Where the contestants are measured: one mount namespace, one directory with their bundles and their state, one cgroup,
//! all removed at the end.

use std::path::PathBuf;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_child_subreaper;
use nix::unistd::Uid;

use crate::bundle::Place;
use crate::cgroups::{self, Hierarchy, Parent};
use crate::kind::Kind;
use crate::options::Options;
use crate::peers::{self, Runtime};
use crate::timed;
use crate::work::{Contestant, Ground};

/// Of the temporary directory and of the cgroups; this process's id follows.
pub const PREFIX: &str = "onggi-bench-";

pub struct Site<'a> {
    pub place: Place,
    pub hierarchies: &'a [Hierarchy],
    parent: Parent<'a>,
    found: Vec<Runtime>,
    options: &'a Options,
}

/// Makes the directory and the cgroup, and removes them after `f`, with what contestants have left.
pub fn with_site<T>(options: &Options, f: impl FnOnce(&Site) -> Result<T, String>) -> Result<T, String> {
    if !Uid::effective().is_root() {
        return Err("namespaces, cgroups and mounts are made: run it as root".to_owned());
    }
    let found = peers::find(options.runtimes.as_deref())?;
    let hierarchies = cgroups::hierarchies()?;
    // The inits that `create` leaves behind come to this process, as they come to an engine's shim.
    set_child_subreaper(true).map_err(|error| format!("PR_SET_CHILD_SUBREAPER: {error}"))?;
    // Before there are threads, which would stay in the host's.
    own_mounts()?;
    if options.bundles.contains(&Kind::Network) {
        own_network()?;
    }
    timed::start_watchdog();
    let name = format!("{PREFIX}{}", std::process::id());
    cgroups::remove_stale(&hierarchies, PREFIX, &std::env::temp_dir());
    let mut place = Place::new(&name)?;
    place.mount_state()?;
    let parent = Parent::new(&hierarchies, &name)?;
    let site = Site { place, hierarchies: &hierarchies, parent, found, options };
    let result = f(&site);
    timed::end_children();
    // The cgroups first, which still hold what hung.
    drop(site.parent);
    result
}

/// Nothing that is mounted from here on is seen on the host.
fn own_mounts() -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| format!("unshare: {e}"))?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).map_err(|e| format!("mount: {e}"))
}

/// The bridge and the rules of its containers are not the host's.
fn own_network() -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|e| format!("unshare: {e}"))
}

impl Site<'_> {
    /// Floor in both forms unless the kind of bundle has none, and the runtimes. `suffix` is added to their names, by which they have their own bundles,
    /// cgroups and state.
    pub fn contestants(&self, suffix: &str, kind: Kind) -> Result<Vec<Contestant>, String> {
        let ground = self.ground(kind);
        let mut contestants = Vec::new();
        if kind.without_floor().is_none() {
            for by in ["path", "fd"] {
                contestants.push(Contestant::floor(&ground, self.hierarchies, (by, suffix))?);
            }
        }
        contestants.extend(self.runtimes(suffix, kind)?);
        Ok(contestants)
    }

    pub fn runtimes(&self, suffix: &str, kind: Kind) -> Result<Vec<Contestant>, String> {
        let named = |one: &Runtime| Runtime { name: format!("{}{suffix}", one.name), ..one.clone() };
        let taking_part = self.found.iter().filter(|one| kind.takes(&one.name));
        taking_part.map(|one| Contestant::runtime(&self.ground(kind), named(one))).collect()
    }

    fn ground(&self, kind: Kind) -> Ground<'_> {
        Ground { place: &self.place, parent: &self.parent, options: self.options, kind }
    }

    /// The bundle of one of many sleeping containers of a contestant.
    pub fn live_bundle(&self, name: &str, number: usize) -> Result<PathBuf, String> {
        let cgroup = format!("{}/{name}-kept{number}", self.parent.name);
        let config = self.place.config(&cgroup, &["/bin/sleep", "3600"], self.options.cgroup_namespace);
        self.place.bundle(&format!("{name}-kept{number}"), &config)
    }
}
