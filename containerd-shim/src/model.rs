//! What the table is told and what it answers with: requests, ends of processes, events. Plain data.

use crate::failure::Result;
use crate::wire::{self, Any, CreateTask, ExecTask};
use std::sync::Arc;
use std::time::SystemTime;

/// A request that waits for its answer.
pub type Token = u64;

/// A verb that a worker is at.
pub type Ticket = u64;

/// A container's init, where `exec` is empty, or one of its execs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub id: String,
    pub exec: String,
}

impl Key {
    pub fn init(id: &str) -> Self {
        Self { id: id.into(), exec: String::new() }
    }

    pub fn is_init(&self) -> bool {
        self.exec.is_empty()
    }
}

/// How and when a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    pub status: u32,
    pub at: SystemTime,
}

/// The status of a process that SIGKILL has ended, as a shell has it.
pub const KILLED: u32 = 128 + libc::SIGKILL as u32;

/// The Task service's methods.
#[derive(Clone, Debug)]
pub enum Call {
    Create(Arc<CreateTask>),
    Start(Key),
    State(Key),
    Wait(Key),
    Kill { key: Key, signal: i32, all: bool },
    Exec(Arc<ExecTask>),
    Delete(Key),
    Pids(String),
    Pause(String),
    Resume(String),
    Resize { key: Key, rows: u16, columns: u16 },
    CloseIo { key: Key, stdin: bool },
    Update(String, Vec<u8>),
    Stats(String),
    Checkpoint(Arc<wire::Checkpoint>),
    Connect(String),
    Shutdown,
    Pod(PodCall),
}

/// The Sandbox service's methods.
#[derive(Clone, Debug)]
pub enum PodCall {
    Create(Arc<wire::CreateSandbox>),
    Start(String),
    Status(String),
    Platform(String),
    Ping(String),
    Wait(String),
    Metrics(String),
    Stop(String),
    Shutdown(String),
}

#[derive(Debug)]
pub enum Input {
    Call(Token, Call),
    /// A worker has done its verb.
    Done(Ticket, Result<Outcome>),
    /// With the ticket of the verb that made the process, as the next two: another one may have the same id by now.
    Ended(Key, Ticket, Exit),
    /// So many processes of the container have been killed for lack of memory.
    Oom(String, Ticket, u64),
    /// The time that execs have to end after their init is over.
    Late(String, Ticket),
    /// Nobody took the answer.
    Unanswered(Token),
}

/// What a verb results in.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Nothing,
    Pid(u32),
    /// Whether the container has a pid namespace of its own, whose processes end with init. Without a pid it is to be
    /// restored.
    Created {
        pid: u32,
        has_own_pids: bool,
    },
    Pids(Vec<u32>),
    Stats(Any),
}

/// What a worker does; it may block.
#[derive(Clone, Debug)]
pub enum Verb {
    Create(Arc<CreateTask>),
    Start(String),
    /// The Start of a container that was created from a checkpoint.
    Restore(Arc<CreateTask>),
    StartExec(Arc<ExecTask>),
    /// The container, its mounts, and what it still has in its pipes.
    Delete(String),
    /// A container that was not restored has mounts alone.
    DeleteUnrestored(Arc<CreateTask>),
    DeleteExec(Key),
    KillAll(String, i32),
    /// What SIGKILL of init does not end by itself: a frozen cgroup, other processes.
    KillRest(String),
    Pids(String),
    Pause(String),
    Resume(String),
    Update(String, Vec<u8>),
    Stats(String),
    Checkpoint(Arc<wire::Checkpoint>),
}

#[derive(Clone, Debug)]
pub enum Reply {
    Nothing,
    Pid(u32),
    State(wire::StateAnswer),
    Exit(Exit),
    Deleted {
        pid: u32,
        exit: Exit,
    },
    /// Each with the exec that it is, if any.
    Pids(Vec<(u32, Option<String>)>),
    Stats(Any),
    Connect {
        task_pid: u32,
    },
    Pod(PodReply),
}

#[derive(Clone, Debug)]
pub enum PodReply {
    Started {
        pid: u32,
        at: SystemTime,
    },
    Platform,
    Status {
        id: String,
        pid: u32,
        is_ready: bool,
        started_at: Option<SystemTime>,
        exited_at: Option<SystemTime>,
    },
    Metrics {
        id: String,
        at: SystemTime,
        stats: Any,
    },
}

#[derive(Clone, Debug)]
pub enum Event {
    Create { task: Arc<CreateTask>, pid: u32 },
    Start { id: String, pid: u32 },
    ExecAdded(Key),
    ExecStarted { key: Key, pid: u32 },
    Exit { key: Key, pid: u32, exit: Exit },
    Delete { id: String, pid: u32, exit: Exit },
    Paused(String),
    Resumed(String),
    Oom(String),
    Checkpointed { id: String, path: String },
}

#[derive(Clone, Debug)]
pub enum Action {
    Answer(Token, Result<Reply>),
    Publish(Event),
    Begin(Ticket, Verb),
    /// Without a token, nobody waits for the answer.
    Signal(Option<Token>, Key, i32),
    Resize(Token, Key, u16, u16),
    CloseStdin(Key),
    /// Ends the restoration under way. An `Input::Ended` of SIGKILL is wanted at once.
    Cancel(String, Ticket),
    /// `Input::Late` is wanted after a while.
    StartTimer(String, Ticket),
    /// Nothing more of a process is wanted.
    Forget(Key),
    Exit,
}

impl Verb {
    /// For the log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Start(_) => "start",
            Self::Restore(_) => "restore",
            Self::StartExec(_) => "exec",
            Self::Delete(_) | Self::DeleteUnrestored(_) | Self::DeleteExec(_) => "delete",
            Self::KillAll(..) | Self::KillRest(_) => "kill",
            Self::Pids(_) => "pids",
            Self::Pause(_) => "pause",
            Self::Resume(_) => "resume",
            Self::Update(..) => "update",
            Self::Stats(_) => "stats",
            Self::Checkpoint(_) => "checkpoint",
        }
    }

    pub fn id(&self) -> &str {
        match self {
            Self::Create(task) | Self::Restore(task) | Self::DeleteUnrestored(task) => &task.id,
            Self::StartExec(task) => &task.id,
            Self::Checkpoint(wanted) => &wanted.id,
            Self::DeleteExec(key) => &key.id,
            Self::Start(id) | Self::Delete(id) | Self::KillAll(id, _) | Self::KillRest(id) => id,
            Self::Pids(id) | Self::Pause(id) | Self::Resume(id) | Self::Update(id, _) | Self::Stats(id) => id,
        }
    }
}
