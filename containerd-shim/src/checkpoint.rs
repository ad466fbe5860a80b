//! `Checkpoint`: the request's options as those of the library.

use crate::failure::Result;
use crate::model::Outcome;
use crate::verbs::Made;
use crate::wire;
use libruntime::{CgroupMode, CheckpointOptions};
use prost::Message;

/// `containerd.runc.v1.CheckpointOptions`.
#[derive(Clone, PartialEq, Eq, Message)]
struct Options {
    #[prost(bool, tag = "1")]
    exit: bool,
    #[prost(bool, tag = "2")]
    open_tcp: bool,
    #[prost(bool, tag = "3")]
    external_unix_sockets: bool,
    #[prost(bool, tag = "4")]
    terminal: bool,
    #[prost(bool, tag = "5")]
    file_locks: bool,
    #[prost(string, repeated, tag = "6")]
    empty_namespaces: Vec<String>,
    #[prost(string, tag = "7")]
    cgroups_mode: String,
    #[prost(string, tag = "8")]
    image_path: String,
    #[prost(string, tag = "9")]
    work_path: String,
}

/// On a worker.
pub fn save(made: &Made, wanted: &wire::Checkpoint) -> Result<Outcome> {
    let given = wanted.options.as_ref().map(|any| Options::decode(&*any.value)).transpose();
    let given = given.map_err(|error| crate::failure::Failure::invalid(format!("options: {error}")))?;
    let given = given.unwrap_or_default();
    let image = if given.image_path.is_empty() { &wanted.path } else { &given.image_path };
    let mut options = CheckpointOptions::new(image);
    options.leave_running = !given.exit;
    options.tcp_established = given.open_tcp;
    options.external_unix_sockets = given.external_unix_sockets;
    options.shell_job = given.terminal;
    options.file_locks = given.file_locks;
    options.empty_network = given.empty_namespaces.iter().any(|kind| kind == "network");
    let work = [&given.work_path, &made.options.criu_work_path];
    options.work_path = work.into_iter().find(|path| !path.is_empty()).map(Into::into);
    options.cgroup_mode = match given.cgroups_mode.as_str() {
        "full" => CgroupMode::Full,
        "strict" => CgroupMode::Strict,
        "ignore" => CgroupMode::Ignore,
        _ => CgroupMode::Soft,
    };
    made.container.checkpoint(&options)?;
    Ok(Outcome::Nothing)
}
