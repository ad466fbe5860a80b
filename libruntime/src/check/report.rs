//! The checks of a host, and how they are printed.

use crate::error::Error;
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

/// One check and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What containers lack because of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub costs: Option<String>,
    /// A command or a file that provides it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Check {
    pub(super) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, level: Level::Ok, found: found.into(), costs: None, fix: None }
    }

    pub(super) fn limited(
        name: &'static str,
        found: impl Into<String>,
        costs: &str,
        fix: impl Into<String>,
    ) -> Self {
        let (costs, fix) = (Some(costs.to_owned()), Some(fix.into()));
        Self { name, level: Level::Limited, found: found.into(), costs, fix }
    }

    pub(super) fn missing(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        let costs = Some("no container can run".to_owned());
        Self { name, level: Level::Missing, found: found.into(), costs, fix: Some(fix.into()) }
    }
}

/// An error without its hint, which is shown as the fix.
pub(super) fn told(error: &Error) -> String {
    let text = error.to_string();
    text.split("; hint: ").next().unwrap_or_default().to_owned()
}

/// What [`check`](crate::check) has found.
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
    /// All checks.
    pub checks: Vec<Check>,
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
