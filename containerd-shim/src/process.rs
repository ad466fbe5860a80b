//! One process of a container in the table: its phase, its end, and who waits for it. Pure.

use crate::failure::{Failure, Result};
use crate::model::{Exit, Key, Ticket, Token};
use crate::wire::{ExecTask, StateAnswer};
use std::fmt;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Creating,
    /// Of an exec: added.
    Created,
    Starting,
    Running,
    Pausing,
    Paused,
    /// Its end is published.
    Stopped,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Starting | Self::Running => "running",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// `containerd.v1.types.Status`.
fn number_of(phase: Phase) -> i32 {
    match phase {
        Phase::Creating | Phase::Created => 1,
        Phase::Starting | Phase::Running => 2,
        Phase::Stopped => 3,
        Phase::Paused => 4,
        Phase::Pausing => 5,
    }
}

pub struct Process {
    /// As the client has given them.
    streams: [String; 3],
    terminal: bool,
    pub pid: u32,
    /// Of the verb that makes it or has made it.
    pub ticket: Ticket,
    pub phase: Phase,
    /// Known, if not published yet.
    pub end: Option<Exit>,
    pub waits: Vec<Token>,
    pub deletes: Vec<Token>,
    /// Of an exec, until it is started.
    pub spec: Option<Arc<ExecTask>>,
}

impl Process {
    pub fn new(streams: [&String; 3], terminal: bool, phase: Phase) -> Self {
        let streams = streams.map(String::clone);
        Self {
            streams,
            terminal,
            pid: 0,
            ticket: 0,
            phase,
            end: None,
            waits: Vec::new(),
            deletes: Vec::new(),
            spec: None,
        }
    }

    /// Its end, where that is published.
    pub fn exit(&self) -> Option<Exit> {
        self.end.filter(|_| self.phase == Phase::Stopped)
    }

    pub fn state(&self, key: &Key, bundle: String, of_init: Phase) -> StateAnswer {
        let [stdin, stdout, stderr] = self.streams.clone();
        let phase = match self.phase {
            Phase::Running if of_init == Phase::Paused => Phase::Paused,
            // A restoration takes its time, and the process is not there before.
            Phase::Starting if self.pid == 0 => Phase::Created,
            phase => phase,
        };
        let exit = self.exit();
        StateAnswer {
            id: key.id.clone(),
            bundle,
            pid: self.pid,
            status: number_of(phase),
            stdin,
            stdout,
            stderr,
            terminal: self.terminal,
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: exit.map(|exit| exit.at.into()),
            exec_id: key.exec.clone(),
        }
    }

    pub fn check_startable(&self) -> Result<()> {
        let phase = if self.end.is_some() { Phase::Stopped } else { self.phase };
        match phase {
            Phase::Created if self.deletes.is_empty() => Ok(()),
            phase => Err(Failure::precondition(format!("cannot start a {phase} process"))),
        }
    }

    pub fn check_running(&self, verb: &str) -> Result<()> {
        let phase = if self.end.is_some() { Phase::Stopped } else { self.phase };
        match phase {
            Phase::Running => Ok(()),
            phase => Err(Failure::precondition(format!("cannot {verb} a {phase} container"))),
        }
    }

    /// containerd's client pauses a container before it has it saved.
    pub fn check_savable(&self) -> Result<()> {
        match self.phase {
            Phase::Paused if self.end.is_none() => Ok(()),
            _ => self.check_running("checkpoint"),
        }
    }

    /// A client takes NotFound for success.
    pub fn check_killable(&self) -> Result<()> {
        match self.phase {
            _ if self.end.is_some() => Err(Failure::not_found("process already finished: not found")),
            _ if self.pid == 0 => Err(Failure::precondition("process not created")),
            _ => Ok(()),
        }
    }

    pub fn check_deletable(&self) -> Result<()> {
        match self.phase {
            Phase::Created | Phase::Stopped => Ok(()),
            phase => Err(Failure::precondition(format!("cannot delete a {phase} process"))),
        }
    }
}
