//! Whether containers can run on this host, as this user, and which features they would lack.
//!
//! Tries things out wherever that leaves nothing behind: creates and deletes a container, maps a user namespace, calls
//! the message bus. `trial.rs` makes the container, `cgroups.rs` examines its cgroup, `ids.rs` user namespaces and
//! their maps, `tools.rs` the rest of the host. Must not change the host, nor report that a feature works because a
//! file with its name exists.

mod cgroups;
mod ids;
mod report;
mod tools;
mod trial;

use crate::cgroup;
use crate::plan::request::CgroupDriver;
use crate::runtime::Runtime;
pub use report::{Check, Level, Report};

/// Checks everything that a container of the calling user may need.
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
