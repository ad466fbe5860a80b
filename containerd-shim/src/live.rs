//! The processes that run: what the daemon holds of each beside its entry in the table, and the tasks that watch for
//! its end.

use crate::model::{Exit, Input, Key, Ticket};
use crate::relay::watched;
use crate::stdio::Relays;
use crate::verbs::Made;
use libruntime::{Container, ExecProcess, ExitStatus, Oom, OomEvents};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::Interest;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

#[derive(Clone)]
pub enum Process {
    Init(Container),
    Exec(ExecProcess),
}

impl Process {
    pub fn pid(&self) -> Option<i32> {
        match self {
            Self::Init(container) => container.init_pid(),
            Self::Exec(process) => Some(process.pid()),
        }
    }

    pub fn pidfd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Init(container) => container.pidfd(),
            Self::Exec(process) => process.pidfd(),
        }
    }

    /// Does not wait for the end.
    pub fn try_wait(&self) -> libruntime::Result<Option<ExitStatus>> {
        match self {
            Self::Init(container) => container.try_wait(),
            Self::Exec(process) => process.try_wait(),
        }
    }
}

/// A process in the daemon's hands.
pub struct Live {
    pub process: Process,
    /// Of an init.
    pub made: Option<Made>,
    pub relays: Relays,
    watching: Vec<JoinHandle<()>>,
}

impl Live {
    pub fn new(process: Process, made: Option<Made>, relays: Relays) -> Self {
        Self { process, made, relays, watching: Vec::new() }
    }

    /// Tells `inputs` of its end and of lacks of memory: of those before the end. `ticket` is that of the verb which has
    /// made it.
    pub fn watch(
        &mut self,
        key: Key,
        ticket: Ticket,
        oom: Option<OomEvents>,
        inputs: UnboundedSender<Input>,
    ) {
        let oom = oom.map(|oom| Arc::new(tokio::sync::Mutex::new(oom)));
        if let Some(oom) = oom.clone() {
            self.watching.push(tokio::spawn(watch_oom(key.id.clone(), ticket, oom, inputs.clone())));
        }
        self.watching.push(tokio::spawn(watch_end(key, ticket, self.process.clone(), oom, inputs)));
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        for task in &self.watching {
            task.abort();
        }
    }
}

type SharedOom = Arc<tokio::sync::Mutex<OomEvents>>;

async fn watch_end(
    key: Key,
    ticket: Ticket,
    process: Process,
    oom: Option<SharedOom>,
    inputs: UnboundedSender<Input>,
) {
    // Without a descriptor left, it is asked for again and again.
    let watched = process.pidfd().try_clone_to_owned().and_then(|pidfd| watched(pidfd, Interest::READABLE));
    if let Ok(watched) = watched {
        let _ = watched.readable().await;
    }
    let status = loop {
        match process.try_wait() {
            Ok(Some(status)) => break status.shell_code() as u32,
            Ok(None) => tokio::time::sleep(Duration::from_millis(10)).await,
            // Somebody else has reaped it, on a kernel that does not tell how it ended.
            Err(_) => break 255,
        }
    };
    let exit = Exit { status, at: SystemTime::now() };
    if let Some(oom) = oom
        && let Ok(Some(kills)) = oom.lock().await.killed()
    {
        let _ = inputs.send(Input::Oom(key.id.clone(), ticket, kills));
    }
    let _ = inputs.send(Input::Ended(key, ticket, exit));
}

async fn watch_oom(id: String, ticket: Ticket, oom: SharedOom, inputs: UnboundedSender<Input>) {
    let copy = oom.lock().await.as_fd().try_clone_to_owned();
    let Ok(watched) = copy.and_then(|copy| watched(copy, Interest::READABLE)) else { return };
    let mut told = 0;
    while let Ok(mut ready) = watched.readable().await {
        loop {
            let mut oom = oom.lock().await;
            match oom.try_next() {
                Ok(Some(Oom::Happened { killed })) => {
                    // v1 tells before the kernel has chosen a process: that one is not counted yet.
                    told = killed.max(told + 1);
                    let _ = inputs.send(Input::Oom(id.clone(), ticket, told));
                }
                Ok(None) => break,
                _ => return,
            }
        }
        ready.clear_ready();
    }
}
