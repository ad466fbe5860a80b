//! The containers of one shim and what may happen to them: (state, input) to (state, actions). The order of events
//! is decided here: create < start < exit < delete, exec-added < exec-started < exit of the exec, and the exit of init
//! after those of all its execs.
//!
//! Pure: makes no call and asks no clock. daemon.rs does what it says.

use crate::deleted::Deletions;
use crate::failure::{Code, Failure, Result};
use crate::model::{Action, Call, Event, Exit, Input, Key, Outcome, Reply, Ticket, Token, Verb};
use crate::process::{Phase, Process};
use crate::task::Task;
use crate::wire::{CreateTask, ExecTask};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

#[derive(Default)]
pub struct Table {
    tasks: BTreeMap<String, Task>,
    jobs: HashMap<Ticket, Job>,
    last_ticket: Ticket,
    deleted: Deletions,
    actions: Vec<Action>,
}

/// A verb that a worker is at, and who waits for it.
struct Job {
    key: Key,
    token: Option<Token>,
    verb: Verb,
}

impl Table {
    pub fn step(&mut self, input: Input) -> Vec<Action> {
        match input {
            Input::Call(token, call) => self.call(token, call),
            Input::Done(ticket, result) => self.done(ticket, result),
            Input::Ended(key, ticket, exit) => self.ended(&key, ticket, exit),
            Input::Oom(id, ticket, kills) => self.oom(id, ticket, kills),
            Input::Late(id, ticket) => self.late(&id, ticket),
            Input::Unanswered(token) => self.unanswered(token),
        }
        std::mem::take(&mut self.actions)
    }

    fn unanswered(&mut self, token: Token) {
        self.deleted.unanswered(token);
        for process in self.tasks.values_mut().flat_map(Task::processes) {
            process.waits.retain(|wait| *wait != token);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// For whoever looks for a fault.
    pub fn lines(&self) -> Vec<String> {
        self.tasks.iter().flat_map(|(id, task)| task.lines(id)).collect()
    }

    fn call(&mut self, token: Token, call: Call) {
        let result = match call {
            Call::Create(task) => self.create(token, task),
            Call::Connect(id) => {
                let pid = self.tasks.get(&id).map_or(0, |task| task.init.pid);
                self.answer(token, Ok(Reply::Connect { task_pid: pid }));
                Ok(())
            }
            Call::Shutdown => {
                self.answer(token, Ok(Reply::Nothing));
                if self.tasks.is_empty() {
                    self.actions.push(Action::Exit);
                }
                Ok(())
            }
            Call::State(key) => self.state(&key).map(|reply| self.answer(token, Ok(reply))),
            Call::Wait(key) => self.wait(token, &key),
            Call::Kill { key, signal, all } => self.kill(token, key, signal, all),
            Call::Exec(exec) => self.add_exec(token, exec),
            Call::Start(key) if !key.is_init() => self.start_exec(token, key),
            Call::Delete(key) if !key.is_init() => self.delete_exec(token, key),
            Call::Delete(key) => self.delete(token, key),
            Call::Resize { key, rows, columns } => self.resize(token, key, rows, columns),
            Call::CloseIo { key, stdin } => self.close_io(token, key, stdin),
            Call::Pids(id) => self.ask(token, id, Verb::Pids),
            Call::Pod(_) => Err(Failure::unknown("this is not about a container")),
            Call::Stats(id) => self.ask(token, id, Verb::Stats),
            Call::Start(Key { ref id, .. })
            | Call::Pause(ref id)
            | Call::Resume(ref id)
            | Call::Update(ref id, _) => {
                let id = id.clone();
                self.in_turn(token, &id, call)
            }
            Call::Checkpoint(ref wanted) => {
                let id = wanted.id.clone();
                self.in_turn(token, &id, call)
            }
        };
        if let Err(failure) = result {
            self.answer(token, Err(failure));
        }
    }

    fn answer(&mut self, token: Token, result: Result<Reply>) {
        self.actions.push(Action::Answer(token, result));
    }

    fn publish(&mut self, event: Event) {
        self.actions.push(Action::Publish(event));
    }

    fn begin(&mut self, key: Key, token: Option<Token>, verb: Verb) -> Ticket {
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        self.actions.push(Action::Begin(ticket, verb.clone()));
        self.jobs.insert(ticket, Job { key, token, verb });
        ticket
    }

    fn task(&mut self, id: &str) -> Result<&mut Task> {
        self.tasks.get_mut(id).ok_or_else(|| Failure::not_found(format!("container {id} does not exist")))
    }

    fn process(&mut self, key: &Key) -> Result<&mut Process> {
        let task = self.task(&key.id)?;
        if key.is_init() {
            return Ok(&mut task.init);
        }
        let missing = || Failure::not_found(format!("process {} of {} does not exist", key.exec, key.id));
        task.execs.get_mut(&key.exec).ok_or_else(missing)
    }

    fn create(&mut self, token: Token, task: Arc<CreateTask>) -> Result<()> {
        let key = Key::init(&task.id);
        if self.tasks.contains_key(&task.id) {
            return Err(Failure::new(Code::AlreadyExists, format!("container {} already exists", task.id)));
        }
        self.deleted.forget(&task.id);
        let streams = [&task.stdin, &task.stdout, &task.stderr];
        let mut init = Process::new(streams, task.terminal, Phase::Creating);
        let ticket = self.begin(key, Some(token), Verb::Create(task.clone()));
        init.ticket = ticket;
        let new = Task {
            bundle: task.bundle.clone(),
            unrestored: (!task.checkpoint.is_empty()).then(|| task.clone()),
            init,
            execs: BTreeMap::new(),
            has_own_pids: true,
            busy: Some(ticket),
            queue: VecDeque::new(),
            oom_kills: 0,
            is_ending: false,
            is_killed: false,
        };
        self.tasks.insert(task.id.clone(), new);
        Ok(())
    }

    fn state(&mut self, key: &Key) -> Result<Reply> {
        let task = self.task(&key.id)?;
        let (bundle, phase) = (task.bundle.clone(), task.init.phase);
        let process = self.process(key)?;
        Ok(Reply::State(process.state(key, bundle, phase)))
    }

    fn wait(&mut self, token: Token, key: &Key) -> Result<()> {
        let process = self.process(key)?;
        match process.exit() {
            Some(exit) => self.answer(token, Ok(Reply::Exit(exit))),
            None => process.waits.push(token),
        }
        Ok(())
    }

    fn kill(&mut self, token: Token, key: Key, signal: i32, all: bool) -> Result<()> {
        self.process(&key)?;
        let ends_init = key.is_init() && signal == libc::SIGKILL;
        let task = self.task(&key.id)?;
        if ends_init && task.is_restoring() {
            let ticket = task.init.ticket;
            self.actions.push(Action::Cancel(key.id, ticket));
            self.answer(token, Ok(Reply::Nothing));
            return Ok(());
        }
        if all && key.is_init() {
            task.check_restored()?;
            task.is_killed |= ends_init;
            self.begin(key.clone(), Some(token), Verb::KillAll(key.id, signal));
            return Ok(());
        }
        self.process(&key)?.check_killable()?;
        self.actions.push(Action::Signal(Some(token), key.clone(), signal));
        if ends_init {
            self.task(&key.id)?.is_killed = true;
            self.begin(key.clone(), None, Verb::KillRest(key.id));
        }
        Ok(())
    }

    fn resize(&mut self, token: Token, key: Key, rows: u16, columns: u16) -> Result<()> {
        self.process(&key)?;
        self.actions.push(Action::Resize(token, key, rows, columns));
        Ok(())
    }

    fn close_io(&mut self, token: Token, key: Key, stdin: bool) -> Result<()> {
        self.process(&key)?;
        if stdin {
            self.actions.push(Action::CloseStdin(key));
        }
        self.answer(token, Ok(Reply::Nothing));
        Ok(())
    }

    fn ask(&mut self, token: Token, id: String, verb: fn(String) -> Verb) -> Result<()> {
        self.task(&id)?.check_restored()?;
        self.begin(Key::init(&id), Some(token), verb(id));
        Ok(())
    }

    fn add_exec(&mut self, token: Token, exec: Arc<ExecTask>) -> Result<()> {
        if exec.exec_id.is_empty() {
            return Err(Failure::invalid("an exec needs an id"));
        }
        let task = self.task(&exec.id)?;
        task.check_exec()?;
        if task.execs.contains_key(&exec.exec_id) {
            return Err(Failure::new(
                Code::AlreadyExists,
                format!("process {} already exists", exec.exec_id),
            ));
        }
        let mut process =
            Process::new([&exec.stdin, &exec.stdout, &exec.stderr], exec.terminal, Phase::Created);
        process.spec = Some(exec.clone());
        task.execs.insert(exec.exec_id.clone(), process);
        self.publish(Event::ExecAdded(Key { id: exec.id.clone(), exec: exec.exec_id.clone() }));
        self.answer(token, Ok(Reply::Nothing));
        Ok(())
    }

    fn start_exec(&mut self, token: Token, key: Key) -> Result<()> {
        self.task(&key.id)?.check_exec()?;
        let process = self.process(&key)?;
        process.check_startable()?;
        let spec =
            process.spec.take().ok_or_else(|| Failure::precondition("cannot start a running process"))?;
        process.phase = Phase::Starting;
        let ticket = self.begin(key.clone(), Some(token), Verb::StartExec(spec));
        self.process(&key)?.ticket = ticket;
        Ok(())
    }

    fn delete_exec(&mut self, token: Token, key: Key) -> Result<()> {
        let Ok(process) = self.process(&key) else { return self.delete_again(token, &key) };
        process.check_deletable()?;
        process.deletes.push(token);
        if process.deletes.len() == 1 {
            self.begin(key.clone(), None, Verb::DeleteExec(key));
        }
        Ok(())
    }

    fn delete_again(&mut self, token: Token, key: &Key) -> Result<()> {
        let missing = || Failure::not_found(format!("container {} does not exist", key.id));
        let reply = self.deleted.again(token, key).ok_or_else(missing)?;
        self.answer(token, Ok(reply));
        Ok(())
    }

    /// One that waits or is at work already has the same answer for all.
    fn delete(&mut self, token: Token, key: Key) -> Result<()> {
        let Some(task) = self.tasks.get_mut(&key.id) else { return self.delete_again(token, &key) };
        if task.init.deletes.is_empty() {
            return self.in_turn(token, &key.id.clone(), Call::Delete(key));
        }
        task.init.deletes.push(token);
        Ok(())
    }

    /// One after the other, of each container.
    fn in_turn(&mut self, token: Token, id: &str, call: Call) -> Result<()> {
        let task = self.task(id)?;
        if task.busy.is_some() {
            task.queue.push_back((token, call));
            return Ok(());
        }
        if let Call::Delete(key) = call {
            return self.delete_in_turn(token, key);
        }
        let verb = task.verb_of(id, call)?;
        let is_restoration = matches!(verb, Verb::Restore(_));
        let ticket = self.begin(Key::init(id), Some(token), verb);
        let task = self.task(id)?;
        task.busy = Some(ticket);
        if is_restoration {
            task.init.ticket = ticket;
        }
        Ok(())
    }

    fn delete_in_turn(&mut self, token: Token, key: Key) -> Result<()> {
        let task = self.task(&key.id)?;
        let is_created = task.init.phase == Phase::Created && task.init.end.is_none();
        if !is_created && task.init.end.is_none() {
            task.init.check_deletable()?;
        }
        task.init.deletes.push(token);
        if is_created && task.init.pid > 0 {
            // Its exit is published first.
            self.actions.push(Action::Signal(None, key, libc::SIGKILL));
        } else if is_created || task.init.phase == Phase::Stopped {
            self.begin_delete(&key.id.clone());
        }
        Ok(())
    }

    fn begin_delete(&mut self, id: &str) {
        let Ok(task) = self.task(id) else { return };
        let verb = task.unrestored.clone().map_or(Verb::Delete(id.into()), Verb::DeleteUnrestored);
        let ticket = self.begin(Key::init(id), None, verb);
        if let Ok(task) = self.task(id) {
            task.busy = Some(ticket);
        }
    }

    fn done(&mut self, ticket: Ticket, result: Result<Outcome>) {
        let Some(Job { key, token, verb }) = self.jobs.remove(&ticket) else { return };
        let reply = match &verb {
            Verb::Create(task) => self.created(task, result),
            Verb::Start(_) | Verb::Restore(_) => self.started(&key, result),
            Verb::StartExec(_) => self.exec_started(&key, result),
            Verb::Delete(_) | Verb::DeleteUnrestored(_) => return self.delete_done(&key, ticket, result),
            Verb::DeleteExec(_) => return self.exec_deleted(&key),
            Verb::Pids(_) => result.map(|outcome| self.named_pids(&key.id, outcome)),
            Verb::Pause(_) => self.froze(&key, result, (Phase::Paused, Phase::Running), Event::Paused),
            Verb::Resume(_) => self.froze(&key, result, (Phase::Running, Phase::Paused), Event::Resumed),
            Verb::Checkpoint(wanted) => result.map(|_| {
                self.publish(Event::Checkpointed { id: key.id.clone(), path: wanted.path.clone() });
                Reply::Nothing
            }),
            _ => result.map(|outcome| match outcome {
                Outcome::Stats(stats) => Reply::Stats(stats),
                _ => Reply::Nothing,
            }),
        };
        if let Some(token) = token {
            self.answer(token, reply);
        }
        self.go_on(&key, ticket);
    }

    /// What has waited for the end of a verb: ends of processes first, then the next verb.
    fn go_on(&mut self, key: &Key, ticket: Ticket) {
        if let Ok(task) = self.task(&key.id)
            && task.busy == Some(ticket)
        {
            task.busy = None;
        }
        self.end_execs(&key.id);
        self.end_init(&key.id);
        while let Ok(task) = self.task(&key.id)
            && task.busy.is_none()
            && let Some((token, call)) = task.queue.pop_front()
        {
            let result = match call {
                Call::Delete(key) => self.delete(token, key),
                call => self.in_turn(token, &key.id, call),
            };
            if let Err(failure) = result {
                self.answer(token, Err(failure));
            }
        }
        if self.task(&key.id).is_ok_and(|task| task.is_to_be_deleted()) {
            self.begin_delete(&key.id);
        }
    }

    fn created(&mut self, wanted: &Arc<CreateTask>, result: Result<Outcome>) -> Result<Reply> {
        let (pid, has_own_pids) = match result {
            Ok(Outcome::Created { pid, has_own_pids }) => (pid, has_own_pids),
            Ok(_) => (0, true),
            Err(failure) => {
                self.drop_task(&wanted.id);
                return Err(failure);
            }
        };
        let task = self.task(&wanted.id)?;
        (task.init.phase, task.init.pid, task.has_own_pids) = (Phase::Created, pid, has_own_pids);
        self.publish(Event::Create { task: wanted.clone(), pid });
        Ok(Reply::Pid(pid))
    }

    /// Whoever still waits for something of it learns that it is gone.
    fn drop_task(&mut self, id: &str) {
        let Some(task) = self.tasks.remove(id) else { return };
        let gone = || Err(Failure::not_found(format!("container {id} does not exist")));
        let processes = task.execs.values().chain([&task.init]);
        let waits = processes.flat_map(|process| process.waits.iter().chain(&process.deletes).copied());
        let tokens: Vec<Token> = waits.chain(task.queue.iter().map(|(token, _)| *token)).collect();
        let keys = task.execs.keys().map(|exec| Key { id: id.into(), exec: exec.clone() });
        let keys: Vec<Key> = keys.chain([Key::init(id)]).collect();
        self.actions.extend(tokens.into_iter().map(|token| Action::Answer(token, gone())));
        self.actions.extend(keys.into_iter().map(Action::Forget));
    }

    fn started(&mut self, key: &Key, result: Result<Outcome>) -> Result<Reply> {
        let task = self.task(&key.id)?;
        // A failure leaves what can be started again, or has ended by a kill.
        task.init.phase = Phase::Created;
        let mut is_killed = false;
        match result? {
            Outcome::Created { pid, has_own_pids } => {
                (task.init.pid, task.has_own_pids, task.unrestored) = (pid, has_own_pids, None);
                // The restoration was done before it was cancelled: the process has an end of its own.
                is_killed = task.init.end.take().is_some();
            }
            Outcome::Pid(pid) => task.init.pid = pid,
            _ => {}
        }
        task.init.phase = Phase::Running;
        let pid = task.init.pid;
        self.publish(Event::Start { id: key.id.clone(), pid });
        if is_killed {
            self.actions.push(Action::Signal(None, key.clone(), libc::SIGKILL));
        }
        Ok(Reply::Pid(pid))
    }

    fn exec_started(&mut self, key: &Key, result: Result<Outcome>) -> Result<Reply> {
        let Ok(process) = self.process(key) else {
            // Its container is deleted, and it has ended with it.
            self.actions.push(Action::Forget(key.clone()));
            return Err(Failure::not_found(format!("container {} does not exist", key.id)));
        };
        let pid = match result {
            Ok(Outcome::Pid(pid)) => pid,
            Ok(_) => 0,
            Err(failure) => {
                // There is no event of what never ran.
                let exit = Exit { status: 255, at: UNIX_EPOCH };
                process.end = Some(exit);
                process.phase = Phase::Stopped;
                let waits = std::mem::take(&mut process.waits);
                self.answer_all(waits, &Reply::Exit(exit));
                return Err(failure);
            }
        };
        (process.pid, process.phase) = (pid, Phase::Running);
        self.publish(Event::ExecStarted { key: key.clone(), pid });
        Ok(Reply::Pid(pid))
    }

    fn froze(
        &mut self,
        key: &Key,
        result: Result<Outcome>,
        (after, before): (Phase, Phase),
        event: fn(String) -> Event,
    ) -> Result<Reply> {
        let task = self.task(&key.id)?;
        let (is_killed, init) = (task.is_killed, &mut task.init);
        // It may have ended meanwhile.
        if init.phase == Phase::Stopped {
            return result.map(|_| Reply::Nothing);
        }
        init.phase = if result.is_ok() { after } else { before };
        result?;
        self.publish(event(key.id.clone()));
        if is_killed && after == Phase::Paused {
            // The kill may have thawed it before it froze: what is frozen does not end.
            self.begin(key.clone(), None, Verb::KillRest(key.id.clone()));
        }
        Ok(Reply::Nothing)
    }

    fn delete_done(&mut self, key: &Key, ticket: Ticket, result: Result<Outcome>) {
        let Ok(task) = self.task(&key.id) else { return };
        let tokens = std::mem::take(&mut task.init.deletes);
        let (pid, end) = (task.init.pid, task.init.end);
        if let Err(failure) = result {
            for token in tokens {
                self.answer(token, Err(failure.clone()));
            }
            return self.go_on(key, ticket);
        }
        let exit = end.unwrap_or(Exit { status: 0, at: UNIX_EPOCH });
        self.drop_task(&key.id);
        self.publish(Event::Delete { id: key.id.clone(), pid, exit });
        let reply = Reply::Deleted { pid, exit };
        self.deleted.remember(key.clone(), tokens.clone(), reply.clone());
        self.answer_all(tokens, &reply);
    }

    fn exec_deleted(&mut self, key: &Key) {
        let Ok(process) = self.process(key) else { return };
        let tokens = std::mem::take(&mut process.deletes);
        let waits = std::mem::take(&mut process.waits);
        let exit = process.end.unwrap_or(Exit { status: 0, at: UNIX_EPOCH });
        let reply = Reply::Deleted { pid: process.pid, exit };
        if let Ok(task) = self.task(&key.id) {
            task.execs.remove(&key.exec);
        }
        self.answer_all(waits, &Reply::Exit(exit));
        self.actions.push(Action::Forget(key.clone()));
        self.deleted.remember(key.clone(), tokens.clone(), reply.clone());
        self.answer_all(tokens, &reply);
    }

    fn named_pids(&mut self, id: &str, outcome: Outcome) -> Reply {
        let Outcome::Pids(pids) = outcome else { return Reply::Pids(Vec::new()) };
        let Ok(task) = self.task(id) else { return Reply::Pids(Vec::new()) };
        let exec_of =
            |pid: u32| task.execs.iter().find(|(_, exec)| exec.pid == pid).map(|(name, _)| name.clone());
        Reply::Pids(pids.into_iter().map(|pid| (pid, exec_of(pid))).collect())
    }

    fn answer_all(&mut self, tokens: Vec<Token>, reply: &Reply) {
        self.actions.extend(tokens.into_iter().map(|token| Action::Answer(token, Ok(reply.clone()))));
    }

    fn ended(&mut self, key: &Key, ticket: Ticket, exit: Exit) {
        let Ok(process) = self.process(key) else { return };
        if process.ticket != ticket {
            return;
        }
        if process.end.is_none() {
            process.end = Some(exit);
        }
        self.end_execs(&key.id);
        self.end_init(&key.id);
    }

    /// Execs whose end is known, and whose start is done.
    fn end_execs(&mut self, id: &str) {
        let Ok(task) = self.task(id) else { return };
        let has_ended = |exec: &Process| exec.end.is_some() && exec.phase == Phase::Running;
        let ended = task.execs.iter().filter(|(_, exec)| has_ended(exec)).map(|(name, _)| name.clone());
        for exec in ended.collect::<Vec<_>>() {
            self.publish_exit(&Key { id: id.into(), exec });
        }
    }

    fn late(&mut self, id: &str, ticket: Ticket) {
        if self.task(id).is_ok_and(|task| task.init.ticket == ticket) {
            self.publish_exit(&Key::init(id));
        }
    }

    /// After its execs: those that still run get a while.
    fn end_init(&mut self, id: &str) {
        let Ok(task) = self.task(id) else { return };
        let is_starting = matches!(task.init.phase, Phase::Creating | Phase::Starting);
        if task.init.end.is_none() || task.init.phase == Phase::Stopped || is_starting {
            return;
        }
        let is_live = |exec: &Process| matches!(exec.phase, Phase::Starting | Phase::Running);
        let has_live = task.execs.values().any(is_live);
        let first = !std::mem::replace(&mut task.is_ending, true);
        let (has_own_pids, ticket) = (task.has_own_pids, task.init.ticket);
        if first && !has_own_pids {
            self.begin(Key::init(id), None, Verb::KillAll(id.into(), libc::SIGKILL));
        }
        if !has_live {
            self.publish_exit(&Key::init(id));
        } else if first {
            self.actions.push(Action::StartTimer(id.into(), ticket));
        }
    }

    fn publish_exit(&mut self, key: &Key) {
        let Ok(process) = self.process(key) else { return };
        let Some(exit) = process.end.filter(|_| process.phase != Phase::Stopped) else { return };
        process.phase = Phase::Stopped;
        let (pid, waits) = (process.pid, std::mem::take(&mut process.waits));
        self.publish(Event::Exit { key: key.clone(), pid, exit });
        self.answer_all(waits, &Reply::Exit(exit));
        if key.is_init() && self.task(&key.id).is_ok_and(|task| task.is_to_be_deleted()) {
            self.begin_delete(&key.id);
        }
    }

    fn oom(&mut self, id: String, ticket: Ticket, kills: u64) {
        let Ok(task) = self.task(&id) else { return };
        let is_its_own = task.init.ticket == ticket;
        if is_its_own
            && kills > task.oom_kills
            && !matches!(task.init.phase, Phase::Creating | Phase::Stopped)
        {
            task.oom_kills = kills;
            self.publish(Event::Oom(id));
        }
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
