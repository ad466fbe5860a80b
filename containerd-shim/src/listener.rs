//! The daemon's process: its socket, and the runtime of its one thread.

use crate::args::Args;
use crate::daemon::Daemon;
use crate::events::Events;
use crate::failure::{Failure, Result};
use crate::{connection, log, reaper, service};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener as StdListener;
use std::path::PathBuf;
use tokio::net::UnixListener;
use tokio::sync::mpsc;

const CAP_SYS_PTRACE: u64 = 1 << 19;

/// Until the last container is gone.
pub fn serve(args: &Args) -> Result<()> {
    let bundle = std::env::current_dir().map_err(|error| Failure::os("getcwd", error))?;
    log::open(&bundle, args.debug);
    serve_now(args).inspect_err(|failure| {
        log::warn("the shim cannot serve", &[("error", &failure.text)]);
        // Nobody would ever answer there.
        let _ = std::fs::remove_file(&args.socket);
    })
}

fn serve_now(args: &Args) -> Result<()> {
    hide().map_err(|errno| Failure::os("prctl PR_SET_DUMPABLE", errno))?;
    nix::sys::prctl::set_child_subreaper(true)
        .map_err(|errno| Failure::os("prctl PR_SET_CHILD_SUBREAPER", errno))?;
    let socket = take_socket()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::os("epoll_create1", error))?;
    runtime.block_on(run(args, socket))
}

/// Not dumpable, and nor are children before they execute: one that holds a new user namespace for us belongs to our
/// uid, and root of any container in the host's pid namespace, without a capability, could else use our memory and
/// descriptors through it (user_namespaces(7), ptrace(2)). Without CAP_SYS_PTRACE we could not use the child either.
fn hide() -> nix::Result<()> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    match capabilities(&status) & CAP_SYS_PTRACE {
        0 => Ok(()),
        _ => nix::sys::prctl::set_dumpable(false),
    }
}

/// The effective ones.
fn capabilities(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0)
}

/// From standard input, which is /dev/null from now on.
fn take_socket() -> Result<StdListener> {
    let failed = |error| Failure::os("take the socket from standard input", error);
    let socket = std::io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
    let null = File::open("/dev/null").map_err(failed)?;
    nix::unistd::dup2_stdin(&null).map_err(|errno| failed(errno.into()))?;
    let socket = StdListener::from(socket);
    socket.set_nonblocking(true).map_err(failed)?;
    Ok(socket)
}

async fn run(args: &Args, socket: StdListener) -> Result<()> {
    let listener =
        UnixListener::from_std(socket).map_err(|error| Failure::os("epoll_ctl the socket", error))?;
    let signals = reaper::Signals::new().map_err(|error| Failure::os("sigaction", error))?;
    let (calls, requests) = mpsc::unbounded_channel();
    let mut server = ttrpc::r#async::Server::new()
        .add_listener(ttrpc::r#async::transport::Listener::new(connection::accept(listener)))
        .register_service(service::services(&calls));
    server.start().await.map_err(|error| Failure::unknown(format!("ttrpc: {error}")))?;
    let events = Events::new(args.namespace.clone());
    if let Some(address) = std::env::var("TTRPC_ADDRESS").ok().filter(|address| !address.is_empty()) {
        tokio::spawn(events.clone().forward(address));
    }
    Daemon::run(args.namespace.clone(), PathBuf::from(&args.socket), events, requests, signals).await;
    Ok(())
}
