//! One container in the table: its init, its execs, and the verbs that wait for their turn. Pure.

use crate::failure::{Failure, Result};
use crate::model::{Call, Ticket, Token, Verb};
use crate::process::{Phase, Process};
use crate::wire::CreateTask;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

pub struct Task {
    pub bundle: String,
    /// What Start restores, until that is done: there is no process and no cgroup before.
    pub unrestored: Option<Arc<CreateTask>>,
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

    pub fn is_restoring(&self) -> bool {
        self.unrestored.is_some() && self.init.phase == Phase::Starting
    }

    /// For what asks for processes or cgroups.
    pub fn check_restored(&self) -> Result<()> {
        match self.unrestored {
            Some(_) => Err(Failure::precondition("the container is not restored yet; hint: start it")),
            None => Ok(()),
        }
    }

    /// The verb of a call whose turn it is.
    pub fn verb_of(&mut self, id: &str, call: Call) -> Result<Verb> {
        let id = id.to_string();
        match call {
            Call::Start(_) => {
                self.init.check_startable()?;
                self.init.phase = Phase::Starting;
                Ok(self.unrestored.clone().map_or(Verb::Start(id), Verb::Restore))
            }
            Call::Pause(_) => {
                self.init.check_running("pause")?;
                self.init.phase = Phase::Pausing;
                Ok(Verb::Pause(id))
            }
            Call::Resume(_) if self.init.phase != Phase::Paused => {
                let phase = self.init.phase;
                Err(Failure::precondition(format!("cannot resume a container that is {phase}")))
            }
            Call::Resume(_) => Ok(Verb::Resume(id)),
            Call::Update(_, resources) => self.check_restored().map(|()| Verb::Update(id, resources)),
            Call::Checkpoint(wanted) => {
                self.init.check_savable()?;
                Ok(Verb::Checkpoint(wanted))
            }
            _ => Err(Failure::unknown("this request has no turn")),
        }
    }

    /// No process joins a container whose end is known.
    pub fn check_exec(&self) -> Result<()> {
        self.check_restored()?;
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
