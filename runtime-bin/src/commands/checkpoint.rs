//! `checkpoint`: saves a running container to files, by CRIU. Not in the spec; runc has it.

use crate::cli::{Flag, Parsed, Verb};
use crate::failure::Failure;
use crate::global::Global;
use libruntime::{CgroupMode, CheckpointOptions};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

pub const IMAGE_PATH: Flag =
    Flag::value("image-path", "DIR", "the directory of CRIU's files (default: ./checkpoint)");
pub const WORK_PATH: Flag =
    Flag::value("work-path", "DIR", "the directory of CRIU's logs (default: that of its files)");
pub const TCP_ESTABLISHED: Flag = Flag::switch("tcp-established", "allow open TCP connections");
pub const EXT_UNIX_SK: Flag = Flag::switch("ext-unix-sk", "allow unix sockets to outside the container");
pub const SHELL_JOB: Flag = Flag::switch("shell-job", "allow a session that is led from outside");
pub const FILE_LOCKS: Flag = Flag::switch("file-locks", "save and restore file locks");
pub const LINK_REMAP: Flag = Flag::switch("link-remap", "keep files that were removed while open");
pub const MANAGE_CGROUPS_MODE: Flag =
    Flag::value("manage-cgroups-mode", "MODE", "soft (default), full, strict or ignore");
pub const EMPTY_NS: Flag =
    Flag::value("empty-ns", "NAMESPACE", "network: do not save or restore its content");
pub const AUTO_DEDUP: Flag = Flag::switch("auto-dedup", "drop pages that are saved again from older files");
pub const LAZY_PAGES: Flag = Flag::switch("lazy-pages", "serve memory when it is first used");

pub const VERB: Verb = Verb {
    name: "checkpoint",
    about: "save a running container to files",
    arguments: "<container-id>",
    count: (1, 1),
    trailing: false,
    text: "The container ends and is deleted, unless --leave-running or --pre-dump is given.\n\
           It takes CRIU, as root; CRIU reads its own settings from /etc/criu/default.conf.",
    flags: &[
        IMAGE_PATH,
        WORK_PATH,
        Flag::value("parent-path", "DIR", "the files of an earlier --pre-dump, relative to --image-path"),
        Flag::switch("leave-running", "let the container go on"),
        TCP_ESTABLISHED,
        Flag::switch("tcp-skip-in-flight", "leave out TCP connections that are being opened"),
        EXT_UNIX_SK,
        SHELL_JOB,
        LAZY_PAGES,
        Flag::value("status-fd", "FD", "gets a NUL byte when lazy pages are served"),
        Flag::value("page-server", "ADDRESS:PORT", "where memory is sent to, or served"),
        FILE_LOCKS,
        LINK_REMAP,
        Flag::switch("pre-dump", "save memory alone, and let the container go on"),
        MANAGE_CGROUPS_MODE,
        EMPTY_NS,
        AUTO_DEDUP,
    ],
    run,
};

pub fn run(global: &Global, args: &Parsed) -> Result<u8, Failure> {
    let container = global.load(args)?;
    let mut options = options(args)?;
    options.parent_path = path(args, "parent-path");
    options.leave_running = args.is_set("leave-running");
    options.pre_dump = args.is_set("pre-dump");
    options.tcp_skip_in_flight = args.is_set("tcp-skip-in-flight");
    options.status_fd = args.number::<i32>("status-fd")?.filter(|fd| *fd >= 0).map(status_fd).transpose()?;
    options.page_server = page_server(args)?;
    container.checkpoint(&options)?;
    if !options.leave_running && !options.pre_dump {
        global.warn_of(&container.delete_force()?);
    }
    Ok(0)
}

/// What `checkpoint` and `restore` have in common.
pub fn options(args: &Parsed) -> Result<CheckpointOptions, Failure> {
    let mut options =
        CheckpointOptions::new(path(args, IMAGE_PATH.name).unwrap_or_else(|| "checkpoint".into()));
    options.work_path = path(args, WORK_PATH.name);
    options.tcp_established = args.is_set(TCP_ESTABLISHED.name);
    options.external_unix_sockets = args.is_set(EXT_UNIX_SK.name);
    options.shell_job = args.is_set(SHELL_JOB.name);
    options.file_locks = args.is_set(FILE_LOCKS.name);
    options.link_remap = args.is_set(LINK_REMAP.name);
    options.auto_dedup = args.is_set(AUTO_DEDUP.name);
    options.lazy_pages = args.is_set(LAZY_PAGES.name);
    options.cgroup_mode = match args.get(MANAGE_CGROUPS_MODE.name) {
        None | Some("" | "soft") => CgroupMode::Soft,
        Some("full") => CgroupMode::Full,
        Some("strict") => CgroupMode::Strict,
        Some("ignore") => CgroupMode::Ignore,
        Some(_) => return Err(Failure::usage("Invalid manage-cgroups-mode value")),
    };
    for namespace in args.all(EMPTY_NS.name) {
        match namespace {
            "network" => options.empty_network = true,
            other => return Err(Failure::usage(format!("namespace {other:?} is not supported"))),
        }
    }
    Ok(options)
}

/// Absolute: CRIU runs in another directory.
fn path(args: &Parsed, flag: &str) -> Option<PathBuf> {
    args.get(flag).filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn status_fd(fd: i32) -> Result<OwnedFd, Failure> {
    let failed = |error| Failure::os(format_args!("open --status-fd {fd}"), error);
    std::fs::OpenOptions::new()
        .write(true)
        .open(format!("/proc/self/fd/{fd}"))
        .map(OwnedFd::from)
        .map_err(failed)
}

pub fn page_server(args: &Parsed) -> Result<Option<(String, u16)>, Failure> {
    let Some(text) = args.get("page-server").filter(|text| !text.is_empty()) else { return Ok(None) };
    let parsed =
        text.rsplit_once(':').and_then(|(address, port)| Some((address.to_string(), port.parse().ok()?)));
    match parsed.filter(|(address, _)| !address.is_empty()) {
        Some(found) => Ok(Some(found)),
        None => Err(Failure::usage("Use --page-server ADDRESS:PORT to specify page server")),
    }
}
