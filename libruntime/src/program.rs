//! A program that a container is started with, in place of the one that it was created with.

use std::path::PathBuf;

/// What a created container is to run, for [`Container::start_program`](crate::Container::start_program): arguments,
/// environment and working directory. Everything else (the user, capabilities, limits, the filter) is as the container
/// was created with.
///
/// What is not set here is taken from the container's configuration.
#[derive(Clone, Debug)]
pub struct Program {
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) without_env: bool,
    pub(crate) cwd: Option<PathBuf>,
}

impl Program {
    /// A program, which is looked for in the container's `PATH`, and its arguments; the first is its name.
    pub fn new(args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let args = args.into_iter().map(Into::into).collect();
        Self { args, env: Vec::new(), without_env: false, cwd: None }
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push(format!("{name}={value}"));
        self
    }

    /// Starts from an empty environment, without that of the configuration.
    pub fn env_clear(mut self) -> Self {
        self.without_env = true;
        self.env.clear();
        self
    }

    /// Its working directory in the container, which has to be there.
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cwd = Some(directory.into());
        self
    }
}
