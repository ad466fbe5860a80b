//! `create`: a container from its bundle, up to the moment before its program runs. Drives the stage through the
//! container's set-up; What is made besides the processes is in `transaction.rs`, which rolls it back when anything
//! fails.

use crate::container::Container;
use crate::error::{Error, Result};
use crate::hook_stdio::HookStdio;
use crate::launch::{Given, Launch};
use crate::options::Options;
use crate::parent::{Event, Stage};
use crate::prepare::{Prepared, prepare};
use crate::starter::Starter;
use crate::state::Directory;
use crate::status::Status;
use crate::stdio::Streams;
use crate::step::SyncPoint;
use crate::transaction::Transaction;
use crate::wait::{self, Wait};
use crate::{hooks, netdevices, notify, readiness, trace};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::sys::stat::Mode;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// How often a creation begins before it fails because somebody removes its cgroup: systemd does so with cgroups of v1
/// that have no process yet, in some hierarchies whenever it starts a unit.
const ATTEMPTS: u32 = 5;

/// Creates a container: all is set up, and its program waits for `start`. Nothing is left behind by a failure.
pub(crate) fn create(mut options: Options) -> Result<Container> {
    let limits = options.limits.clone();
    wait::limited(&limits, || {
        let prepared = trace::plain("read config.json and plan", || prepare(&options))?;
        let (streams, ends) = options.process.open()?;
        let mut attempts_left = ATTEMPTS;
        let created = loop {
            attempts_left -= 1;
            let transaction = Transaction::begin(&options.settings.store, &prepared)?;
            let mut creation = Creation {
                options: &options,
                prepared: &prepared,
                streams: &streams,
                transaction,
                repeatable: true,
            };
            match creation.set_up() {
                Err(_) if attempts_left > 0 && creation.may_begin_anew() => {}
                set_up => break set_up.and_then(|stage| creation.finish(stage)),
            }
        };
        let mut container = created.map_err(|error| error.within("unable to start container process"))?;
        container.keep(options, prepared.spec, ends.finish(streams)?);
        Ok(container)
    })
}

/// A creation whose id is claimed.
struct Creation<'a> {
    options: &'a Options,
    prepared: &'a Prepared,
    streams: &'a Streams,
    transaction: Transaction<'a>,
    /// Nobody outside has been told of it.
    repeatable: bool,
}

impl<'a> Creation<'a> {
    fn may_begin_anew(&self) -> bool {
        self.repeatable && self.transaction.has_lost_a_cgroup()
    }

    /// All up to the wait for `start`.
    fn set_up(&mut self) -> Result<Stage<'a>> {
        if self.options.notify_socket.is_some() {
            readiness::make_directory(self.transaction.directory())?;
        }
        self.transaction.make_v2_cgroup()?;
        // The v1 cgroups are made while the stage starts, unless its first steps need them.
        let cgroup = &self.transaction.state.cgroup;
        let first = cgroup.is_v2() || self.prepared.plan.opens_below(&cgroup.v1_dirs());
        if first {
            self.transaction.make_cgroup()?;
        }
        self.transaction.begin_network()?;
        let listener = match self.options.start_by_handle {
            true => None,
            false => Some(listen(self.transaction.directory())?),
        };
        let mut stage = self.launch(listener)?;
        self.transaction.state.stage = stage.executable()?;
        if !first {
            self.transaction.make_cgroup()?;
        }
        stage.give_cgroups_ahead(&self.transaction.state.cgroup)?;
        self.write_files()?;
        let in_init = |error: Error| error.within("error during container init");
        while !self.answer(&mut stage).map_err(in_init)? {}
        self.transaction.record()?;
        Ok(stage)
    }

    fn finish(self, mut stage: Stage) -> Result<Container> {
        let starter = self.starter(&stage)?;
        let steps = stage.take_steps();
        let init = stage.into_init().ok_or_else(|| Error::internal("the container has no init"))?;
        Ok(self.transaction.commit(init)?.with_steps(steps).with_starter(starter))
    }

    /// What the handle starts the container with, if nobody else may start it.
    fn starter(&self, stage: &Stage) -> Result<Option<Starter>> {
        if !self.options.start_by_handle {
            return stage.answer().map(|()| None);
        }
        let after_start = self.prepared.plan.encode_after_start();
        Ok(Some(Starter::new(stage.channel(), Some(after_start))))
    }

    /// Writes what verbs after the creation read in the container's directory.
    fn write_files(&self) -> Result<()> {
        self.transaction.write_filter(self.prepared)?;
        match self.options.start_by_handle {
            true => Ok(()),
            false => {
                let steps = self.prepared.plan.encode_after_start();
                self.transaction.directory().write_after_start(&steps)
            }
        }
    }

    fn launch(&self, listener: Option<OwnedFd>) -> Result<Stage<'a>> {
        let Prepared { plan, passed, .. } = self.prepared;
        let born_in = self.transaction.state.cgroup.open_dir()?;
        let launch = Launch {
            stdio: self.streams.stdio(),
            passed,
            cgroup: born_in.as_ref().map(AsFd::as_fd),
            given: Given {
                listener: listener.as_ref().map(AsFd::as_fd),
                console: self.streams.console(),
                bare_mounts: self.options.settings.bare_mounts(),
                program: self.options.init.as_ref().map(|init| init.descriptor.as_fd()),
                ..Given::default()
            },
        };
        let steps = || format!("with {} steps", plan.steps().len());
        trace::part("start the stage", steps, || Stage::launch(plan, &launch))
    }

    /// Does what the stage waits for next. Returns whether the stage is ready.
    fn answer(&mut self, stage: &mut Stage) -> Result<bool> {
        let transaction = &mut self.transaction;
        match stage.next(&Wait::default())? {
            Event::InCgroup => {}
            // A clone of a process that has entered: what was done for its parent applies to it too.
            Event::Cloned if transaction.state.init.is_some() => transaction.set_init(stage.pid())?,
            Event::Cloned => self.entered(stage)?,
            Event::At(SyncPoint::Entered) => {
                self.entered(stage)?;
                stage.answer()?;
            }
            Event::At(SyncPoint::Attached) => {
                transaction.attach(stage.pid())?;
                stage.answer()?;
            }
            Event::At(SyncPoint::Cgroups) => stage.give_cgroups(&transaction.state.cgroup)?,
            Event::At(SyncPoint::Created) => {
                self.repeatable = false;
                transaction.finish_network()?;
                self.before_pivot(stage)?;
                stage.answer()?;
            }
            Event::At(SyncPoint::Ready) => return transaction.limit_to_one().map(|()| true),
            Event::Listener(listener) => {
                self.repeatable = false;
                let of = (stage.pid(), Status::Creating);
                notify::send(transaction.directory(), &transaction.state, of, listener)?;
            }
            Event::End => return Err(stage.died()),
        }
        Ok(false)
    }

    /// The stage is in the container's namespaces.
    fn entered(&mut self, stage: &Stage) -> Result<()> {
        // Where this fails the stage is gone, and its next report says why.
        let _ = self.transaction.enter_network(stage.pid());
        self.transaction.entered(stage.pid())
    }

    /// What is done when the namespaces exist and the root is not entered yet: interfaces, and three kinds of hooks.
    fn before_pivot(&mut self, stage: &Stage) -> Result<()> {
        let spec = &self.prepared.spec;
        let init = stage.current().ok_or_else(|| Error::external("the container has no init"))?;
        netdevices::move_all(spec, init)?;
        let limits = hooks::Limits::with_init(init.pidfd());
        self.transaction.run_early_hooks(limits)?;
        let all = spec.hooks().as_ref();
        let inside = all.and_then(|all| all.create_container().as_deref()).unwrap_or_default();
        let stdio = HookStdio::between(&self.transaction.state, Status::Creating, self.prepared.hook_output);
        hooks::run_all(
            inside,
            "hooks.createContainer",
            &stdio,
            &hooks::Site::Container { spec, init },
            limits,
        )
    }
}

/// The socket to which `start` connects.
fn listen(directory: &Directory) -> Result<OwnedFd> {
    let failed = |what: &str| {
        let call = format!("{what} {}/start", directory.path.display());
        move |errno| Error::os(call, errno)
    };
    let path = directory.magic_path().join("start");
    let socket = socket::socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
        .map_err(failed("socket"))?;
    let address = UnixAddr::new(&path).map_err(failed("bind"))?;
    socket::bind(socket.as_raw_fd(), &address).map_err(failed("bind"))?;
    // Only the owner of the store may start a container, whatever the caller's umask is.
    let flags = nix::sys::stat::FchmodatFlags::FollowSymlink;
    nix::sys::stat::fchmodat(nix::fcntl::AT_FDCWD, &path, Mode::S_IRWXU, flags).map_err(failed("chmod"))?;
    socket::listen(&socket, Backlog::new(16).unwrap_or(Backlog::MAXCONN)).map_err(failed("listen"))?;
    Ok(socket)
}
