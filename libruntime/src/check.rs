//! Whether containers can run on this host, as this user, and what they would have to do without.
//!
//! Asks by trying wherever that leaves nothing behind: a container is made and deleted, a user
//! namespace mapped, the message bus called. `trial.rs` makes the container, `cgroups.rs` looks at
//! what it got, `ids.rs` at user namespaces and their maps, `tools.rs` at the rest of the host.
//! Must not change the host, nor say that something is there because a file with its name is.

mod cgroups;
mod ids;
mod tools;
mod trial;

use crate::cgroup;
use crate::error::Error;
use crate::plan::create::CgroupDriver;
use crate::runtime::Runtime;
use serde::Serialize;
use std::fmt;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Level {
    /// Nothing is missing.
    Ok,
    /// Containers run, but not with everything that a configuration may ask for.
    Limited,
    /// No container can run.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What there is.
    pub found: String,
    /// What the user has to do without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub costs: Option<String>,
    /// The command or the file that gives it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, level: Level::Ok, found: found.into(), costs: None, fix: None }
    }

    fn limited(name: &'static str, found: impl Into<String>, costs: &str, fix: impl Into<String>) -> Self {
        let (costs, fix) = (Some(costs.to_owned()), Some(fix.into()));
        Self { name, level: Level::Limited, found: found.into(), costs, fix }
    }

    fn missing(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        let costs = Some("no container can run".to_owned());
        Self { name, level: Level::Missing, found: found.into(), costs, fix: Some(fix.into()) }
    }
}

/// An error without its hint, which is told as the fix.
fn told(error: &Error) -> String {
    let text = error.to_string();
    text.split("; hint: ").next().unwrap_or_default().to_owned()
}

/// What [`check`] has found.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Report {
    /// Whether containers run at all.
    pub can_run: bool,
    /// Its release (uname(2)).
    pub kernel: String,
    /// Of the calling user.
    pub uid: u32,
    /// All that was looked at.
    pub checks: Vec<Check>,
}

/// Looks at everything that a container of the calling user with its state in `store` may need.
pub fn check(runtime: &Runtime) -> Report {
    let systemd_cgroup = runtime.driver() == CgroupDriver::Systemd;
    let root = nix::unistd::geteuid().is_root();
    let mut checks = vec![tools::kernel()];
    let trial = trial::run(runtime);
    let runs = trial.container.level == Level::Ok;
    checks.extend([trial.store, trial.container]);
    checks.extend(ids::check(root, runs));
    checks.extend(cgroups::check(trial.cgroup, cgroup::has_host_root(), systemd_cgroup));
    checks.extend(tools::check(root));
    Report {
        can_run: checks.iter().all(|check| check.level != Level::Missing),
        kernel: tools::release(),
        uid: nix::unistd::geteuid().as_raw(),
        checks,
    }
}

impl fmt::Display for Report {
    /// A line for each check, and two more for what is missing.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
        for check in &self.checks {
            let level = match check.level {
                Level::Ok => "ok",
                Level::Limited => "limited",
                Level::Missing => "missing",
            };
            writeln!(f, "{level:7}  {:width$}  {}", check.name, check.found)?;
            for (word, text) in [("costs", &check.costs), ("fix", &check.fix)] {
                if let Some(text) = text {
                    writeln!(f, "{:width$}             {word}: {text}", "")?;
                }
            }
        }
        let count = |level| self.checks.iter().filter(|check| check.level == level).count();
        match (self.can_run, count(Level::Limited)) {
            (true, 0) => writeln!(f, "\ncontainers can run, with everything"),
            (true, limited) => {
                writeln!(f, "\ncontainers can run; limited in {limited} of {}", self.checks.len())
            }
            (false, _) => writeln!(f, "\ncontainers cannot run: {} missing", count(Level::Missing)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_costs_and_a_fix_below_what_is_missing() {
        let checks = vec![
            Check::ok("kernel", "Linux 6.1"),
            Check::limited("nft", "not found", "networks with NAT are refused", "install nftables"),
        ];
        let report = Report { can_run: true, kernel: "6.1".into(), uid: 0, checks };
        let expected = "\
ok       kernel  Linux 6.1
limited  nft     not found
                   costs: networks with NAT are refused
                   fix: install nftables

containers can run; limited in 1 of 2
";
        assert_eq!(report.to_string(), expected);
    }

    #[test]
    fn every_finding_says_what_it_costs_and_how_to_get_it() {
        let store = std::env::temp_dir().join(format!("onggi-check-{}", std::process::id()));
        let report = check(&Runtime::new(&store));
        assert!(report.checks.len() > 8, "{report}");
        for check in report.checks.iter().filter(|check| check.level != Level::Ok) {
            assert!(check.costs.is_some() && check.fix.is_some(), "{check:?}");
        }
        assert!(!store.exists(), "the store that was made for the check is still there");
    }
}
