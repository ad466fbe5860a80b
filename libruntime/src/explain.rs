//! `explain`: what creating a container would do, as text and as JSON.

use crate::cgroup::Cgroup;
use crate::error::{Diagnostic, Result};
use crate::network::Network;
use crate::options::Options;
use crate::plan::Plan;
use crate::prepare::{Prepared, prepare_for};

/// What creating a container would do, without doing any of it.
#[derive(Debug)]
pub struct Explanation {
    plan: Plan,
    cgroup: Cgroup,
    networks: Vec<Network>,
    warnings: Vec<Diagnostic>,
}

/// Plans a container. Needs no privileges and changes nothing.
pub(crate) fn explain(options: &Options) -> Result<Explanation> {
    // The plan is that of a creation with a socket for the terminal.
    let Prepared { mut plan, cgroup, networks, warnings, .. } = prepare_for(options, true)?;
    plan.warnings = warnings.clone();
    Ok(Explanation { plan, cgroup, networks, warnings })
}

impl Explanation {
    /// What creation would warn about.
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// For people: a line for each step, with the place in `config.json` it comes from, and what
    /// the library does beside it.
    pub fn to_text(&self) -> String {
        let mut text = self.plan.to_text();
        for (controller, path) in self.cgroup.paths() {
            let name = if controller.is_empty() { "v2" } else { &controller };
            text.push_str(&format!("cgroup {name} is {}\n", path.display()));
        }
        for network in &self.networks {
            text.push_str(&format!("network {network}, at {}\n", network.at));
        }
        text
    }

    /// For programs: `steps`, `handed`, `newUserNamespace`, `idMaps`, `cgroup`, `networks` and
    /// `warnings`.
    pub fn to_json(&self) -> serde_json::Value {
        let mut object = self.plan.to_json();
        object["cgroup"] = serde_json::json!(self.cgroup.paths());
        object["networks"] = serde_json::json!(self.networks);
        object
    }
}
