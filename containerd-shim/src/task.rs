//! One container in the table: its init, its execs, and the verbs that wait for their turn. Pure.

use crate::failure::{Failure, Result};
use crate::model::{Call, Ticket, Token};
use crate::process::{Phase, Process};
use std::collections::{BTreeMap, VecDeque};

pub struct Task {
    pub bundle: String,
    /// Of its Create.
    pub ticket: Ticket,
    pub init: Process,
    pub execs: BTreeMap<String, Process>,
    pub has_own_pids: bool,
    /// Of the verbs that exclude each other.
    pub busy: Option<Ticket>,
    pub queue: VecDeque<(Token, Call)>,
    pub oom_kills: u64,
    /// What ends with init was killed, and the timer started.
    pub is_ending: bool,
    /// SIGKILL was sent to init.
    pub is_killed: bool,
}

impl Task {
    pub fn is_to_be_deleted(&self) -> bool {
        self.busy.is_none() && self.init.phase == Phase::Stopped && !self.init.deletes.is_empty()
    }

    pub fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        self.execs.values_mut().chain([&mut self.init])
    }

    /// No process joins a container whose end is known.
    pub fn check_exec(&self) -> Result<()> {
        let phase = if self.init.end.is_some() { Phase::Stopped } else { self.init.phase };
        match phase {
            Phase::Created | Phase::Starting | Phase::Running => Ok(()),
            phase => Err(Failure::precondition(format!("cannot exec in a {phase} state"))),
        }
    }

    /// A line for each process.
    pub fn lines(&self, id: &str) -> Vec<String> {
        let line = |exec: &str, process: &Process| {
            let (pid, phase, waits) = (process.pid, process.phase, process.waits.len());
            format!("id={id} exec={exec} pid={pid} phase={phase:?} end={:?} waits={waits}", process.end)
        };
        let busy = format!("id={id} busy={:?} queued={}", self.busy, self.queue.len());
        let execs = self.execs.iter().map(|(exec, process)| line(exec, process));
        [line("", &self.init), busy].into_iter().chain(execs).collect()
    }
}
