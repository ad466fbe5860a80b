//! The shim itself: one thread that waits and owns all state. Requests, ends of processes and results of workers become
//! inputs of the table; what the table says is done here. Must not block: verbs run on workers.

use crate::checkpoint;
use crate::connection;
use crate::events::Events;
use crate::failure::{Failure, Result};
use crate::idle;
use crate::live::{Live, Process};
use crate::log;
use crate::model::{Action, Call, Exit, Input, KILLED, Key, Outcome, PodReply, Reply, Ticket, Token, Verb};
use crate::pod::{self, Pod};
use crate::pod_config;
use crate::pod_namespaces::{self, Held};
use crate::reaper;
use crate::relay::watched;
use crate::restore;
use crate::stdio::Relays;
use crate::sys;
use crate::table::Table;
use crate::verbs::{self, Created, Executed, Made};
use crate::wire::{CreateSandbox, CreateTask};
use crate::worker;
use libruntime::Cancel;
use nix::errno::Errno;
use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::io::Interest;
use tokio::sync::{mpsc, oneshot};

/// For execs, after their init.
const GRACE: Duration = Duration::from_secs(10);
/// A shim that never got a container is of no use to anybody.
const IDLE: Duration = Duration::from_secs(300);
/// Without a request or an end of a process, when workers have ended as well. Longer than the period of most probes: each
/// would pay for the pages that were given back before it.
const REST: Duration = Duration::from_secs(3);
/// For events that containerd has not taken when the shim ends.
const LAST_EVENTS: Duration = Duration::from_secs(2);

/// Until the answer to Shutdown is written. A shim that ends by itself or by a signal has none.
const LAST_ANSWER: Duration = Duration::from_millis(20);

/// So many requests wait before clients that have gone are looked for.
const FEW: usize = 64;

type Request = (Call, oneshot::Sender<Result<Reply>>);

/// What a worker brings back.
enum Brought {
    Created(Box<Result<Created>>),
    Executed(Result<Executed>),
    Outcome(Result<Outcome>),
    Held(Token, Result<Held>),
    /// The init of the pod has ended.
    Lost,
    Released,
}

pub struct Daemon {
    pub namespace: String,
    pub socket: PathBuf,
    table: Table,
    events: Events,
    live: HashMap<Key, Live>,
    pod: Pod,
    held: Option<Held>,
    /// With its last container.
    is_ending: bool,
    /// Restorations under way.
    restoring: HashMap<Ticket, Cancel>,
    waiting: HashMap<Token, oneshot::Sender<Result<Reply>>>,
    /// With so many of them, clients that have gone are looked for.
    look_at: usize,
    last_token: Token,
    inputs: mpsc::UnboundedSender<Input>,
    brought: mpsc::UnboundedSender<(Ticket, Key, Instant, Brought)>,
    is_over: bool,
}

impl Daemon {
    pub async fn run(
        namespace: String,
        socket: PathBuf,
        events: Events,
        mut calls: mpsc::UnboundedReceiver<Request>,
        mut signals: reaper::Signals,
    ) {
        let (inputs, mut told) = mpsc::unbounded_channel();
        let (brought, mut results) = mpsc::unbounded_channel();
        let mut daemon = Self {
            namespace,
            socket,
            table: Table::default(),
            events,
            live: HashMap::new(),
            pod: Pod::default(),
            held: None,
            is_ending: false,
            restoring: HashMap::new(),
            waiting: HashMap::new(),
            look_at: FEW,
            last_token: 0,
            inputs,
            brought,
            is_over: false,
        };
        let mut is_at_rest = false;
        while !daemon.is_over {
            let was_at_rest = std::mem::replace(&mut is_at_rest, false);
            // Results before ends: the end of a process comes after the start of it is known.
            tokio::select! {
                biased;
                Some((ticket, key, begun, brought)) = results.recv() => daemon.take(ticket, key, begun, brought),
                Some(input) = told.recv() => daemon.told(input),
                Some((call, sender)) = calls.recv() => daemon.request(call, sender),
                signal = signals.next() => daemon.signalled(signal),
                () = tokio::time::sleep(REST), if !was_at_rest => {
                    idle::give_back_text();
                    is_at_rest = true;
                }
                () = tokio::time::sleep(IDLE), if !daemon.is_needed() => daemon.is_over = true,
            }
        }
        // First: a `start` that still found this shim would give its address to containerd.
        let _ = std::fs::remove_file(&daemon.socket);
        let mut written = pin!(connection::WRITES.notified());
        // From here on, also those during the next line.
        written.as_mut().enable();
        daemon.events.drain(LAST_EVENTS).await;
        let _ = tokio::time::timeout(LAST_ANSWER, written).await;
        // Other answers that were ready with it.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    fn request(&mut self, call: Call, sender: oneshot::Sender<Result<Reply>>) {
        if self.waiting.len() >= self.look_at {
            self.forget_clients();
        }
        self.last_token += 1;
        self.waiting.insert(self.last_token, sender);
        match call {
            Call::Pod(call) => self.step_pod(pod::Input::Call(self.last_token, call)),
            call => self.step(Input::Call(self.last_token, call)),
        }
    }

    fn is_needed(&self) -> bool {
        !self.table.is_empty() || self.pod.is_there()
    }

    /// Those that have gone: a container may run for months, and a Wait of each of them would stay.
    fn forget_clients(&mut self) {
        let gone = self.waiting.iter().filter(|(_, sender)| sender.is_closed()).map(|(token, _)| *token);
        for token in gone.collect::<Vec<_>>() {
            self.waiting.remove(&token);
            self.step(Input::Unanswered(token));
            self.step_pod(pod::Input::Unanswered(token));
        }
        self.look_at = 2 * self.waiting.len() + FEW;
    }

    fn signalled(&mut self, signal: reaper::Signal) {
        match signal {
            reaper::Signal::Child => self.reap(),
            reaper::Signal::End => self.is_over = !self.is_needed(),
            reaper::Signal::Dump => {
                for line in self.table.lines().into_iter().chain(self.pod.line()) {
                    log::info("table", &[("line", &line)]);
                }
            }
        }
    }

    /// Children of this thread alone: a worker waits for its own. Those in the table are reaped by the library.
    fn reap(&self) {
        let mut asked = None;
        while let Some(pid) = sys::ended_child() {
            let mut of_pid = self.live.values().filter(|live| live.process.pid() == Some(pid)).peekable();
            if of_pid.peek().is_none() || asked == Some(pid) {
                // Also where it has the pid of one that ended before and is not deleted yet.
                sys::reap(pid);
            } else if of_pid.any(|live| matches!(live.process.try_wait(), Ok(None))) {
                // Asked for again with `Input::Ended`.
                return;
            }
            asked = Some(pid);
        }
    }

    /// By a task. A child whose end was seen before the task had waited for it holds up those behind it until now.
    fn told(&mut self, input: Input) {
        let is_end = matches!(input, Input::Ended(..));
        self.step(input);
        if is_end {
            self.reap();
        }
    }

    fn step(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for action in self.table.step(input) {
                inputs.extend(self.act(action));
            }
        }
        self.is_over |= self.is_ending && self.table.is_empty();
    }

    fn step_pod(&mut self, input: pod::Input) {
        for action in self.pod.step(input, SystemTime::now()) {
            match action {
                pod::Action::Answer(token, result) => {
                    // Nobody may wait for it any more.
                    if let Some(sender) = self.waiting.remove(&token) {
                        let _ = sender.send(result);
                    }
                }
                pod::Action::Hold(token, wanted) => self.hold(token, wanted),
                pod::Action::Release => self.release(),
                pod::Action::Measure(token, id) => self.measure(token, id),
                pod::Action::Exit => {
                    self.is_ending = true;
                    self.is_over = self.table.is_empty();
                }
            }
        }
    }

    /// With the containers that still run, such as those that containerd has lost: their pod ends after them.
    fn release(&mut self) {
        let Some(held) = self.held.take() else { return };
        let inits: Vec<Key> = self.live.keys().filter(|key| key.is_init()).cloned().collect();
        let mut ends = Vec::new();
        for key in inits {
            // One that has ended already cannot be killed, and is not waited for.
            let kill = Call::Kill { key: key.clone(), signal: libc::SIGKILL, all: false };
            self.request(kill, oneshot::channel().0);
            let (sender, end) = oneshot::channel();
            self.request(Call::Wait(key), sender);
            ends.push(end);
        }
        let brought = self.brought.clone();
        tokio::spawn(async move {
            let all = async {
                for end in ends {
                    let _ = end.await;
                }
            };
            // A process in the kernel may not end at all.
            let _ = tokio::time::timeout(GRACE, all).await;
            // Without a worker it is dropped: its thread ends, and `delete` finds the mount.
            let _ = worker::verb(move || held.release()).await;
            let _ = brought.send((0, Key::init(""), Instant::now(), Brought::Released));
        });
    }

    /// On a worker: another mount may be slow.
    fn hold(&self, token: Token, wanted: Arc<CreateSandbox>) {
        let brought = self.brought.clone();
        tokio::spawn(async move {
            let hold =
                move || pod_namespaces::hold(pod_config::wanted(&wanted)?, wanted.bundle_path.as_ref());
            let held = worker::verb(hold).await.and_then(|held| held);
            let _ = brought.send((0, Key::init(""), Instant::now(), Brought::Held(token, held)));
        });
    }

    fn take_held(&mut self, token: Token, held: Result<Held>) {
        let held = held.map(|mut held| {
            if let Some(Ok(watched)) = held.pidfd.take().map(|pidfd| watched(pidfd, Interest::READABLE)) {
                let brought = self.brought.clone();
                tokio::spawn(async move {
                    let _ = watched.readable().await;
                    let _ = brought.send((0, Key::init(""), Instant::now(), Brought::Lost));
                });
            }
            self.held.insert(held).pid
        });
        self.step_pod(pod::Input::Held(token, held));
    }

    /// On a worker: files of cgroups may be slow.
    fn measure(&mut self, token: Token, id: String) {
        let (Some(sender), Some(held)) = (self.waiting.remove(&token), &self.held) else { return };
        let measure = held.measure();
        tokio::spawn(async move {
            let stats = worker::verb(measure).await.and_then(|stats| stats);
            let at = SystemTime::now();
            let _ = sender.send(stats.map(|stats| Reply::Pod(PodReply::Metrics { id, at, stats })));
        });
    }

    /// May have an input at once.
    fn act(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::Answer(token, result) => {
                let sender = self.waiting.remove(&token);
                let is_taken = sender.is_some_and(|sender| sender.send(result).is_ok());
                (!is_taken).then_some(Input::Unanswered(token))
            }
            Action::Publish(event) => {
                self.events.publish(event);
                None
            }
            Action::Begin(ticket, verb) => {
                self.begin(ticket, verb);
                None
            }
            Action::Signal(token, key, signal) => {
                let result = self.signal(&key, signal).map(|()| Reply::Nothing);
                token.and_then(|token| self.act(Action::Answer(token, result)))
            }
            Action::Resize(token, key, rows, columns) => {
                self.resize(token, &key, rows, columns);
                None
            }
            Action::CloseStdin(key) => {
                if let Some(live) = self.live.get(&key) {
                    live.relays.close_stdin();
                }
                None
            }
            Action::Cancel(id, ticket) => {
                if let Some(cancel) = self.restoring.get(&ticket) {
                    cancel.cancel();
                }
                let exit = Exit { status: KILLED, at: SystemTime::now() };
                Some(Input::Ended(Key::init(&id), ticket, exit))
            }
            Action::StartTimer(id, ticket) => {
                let inputs = self.inputs.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(GRACE).await;
                    let _ = inputs.send(Input::Late(id, ticket));
                });
                None
            }
            Action::Forget(key) => {
                if let Some(mut live) = self.live.remove(&key) {
                    // Where no deletion has ended them.
                    tokio::spawn(std::mem::take(&mut live.relays).finish());
                }
                None
            }
            Action::Exit => {
                // The pod's own Shutdown ends the shim of one.
                self.is_over = !self.pod.is_there();
                None
            }
        }
    }

    fn resize(&mut self, token: Token, key: &Key, rows: u16, columns: u16) {
        let resizing = self.live.get(key).map(|live| live.relays.resize(rows, columns));
        let sender = self.waiting.remove(&token);
        tokio::spawn(async move {
            if let Some(resizing) = resizing {
                resizing.await;
            }
            if let Some(sender) = sender {
                let _ = sender.send(Ok(Reply::Nothing));
            }
        });
    }

    fn signal(&self, key: &Key, signal: i32) -> Result<()> {
        let finished = || Failure::not_found("process already finished: not found");
        let live = self.live.get(key).ok_or_else(finished)?;
        sys::pidfd_send_signal(live.process.pidfd(), signal).map_err(|errno| match errno {
            Errno::ESRCH => finished(),
            errno => Failure::os(format!("pidfd_send_signal {signal}"), errno),
        })
    }

    fn begin(&mut self, ticket: Ticket, verb: Verb) {
        log::debug("begin", &[("verb", verb.name()), ("id", verb.id())]);
        match verb {
            Verb::Create(task) => {
                let (namespace, pod) = (self.namespace.clone(), self.pod_bundle());
                let key = Key::init(&task.id);
                if !task.checkpoint.is_empty() {
                    return self
                        .work(ticket, key, move || Brought::Outcome(restore::prepare(&task, &namespace)));
                }
                self.work(ticket, key, move || {
                    Brought::Created(Box::new(verbs::create(&task, &namespace, pod)))
                })
            }
            Verb::Restore(task) => self.restore(ticket, task),
            Verb::DeleteUnrestored(task) => {
                let key = Key::init(&task.id);
                self.work(ticket, key, move || Brought::Outcome(restore::delete(&task)));
            }
            Verb::StartExec(task) => {
                let key = Key { id: task.id.clone(), exec: task.exec_id.clone() };
                match self.made(&task.id) {
                    Ok(made) => self.work(ticket, key, move || Brought::Executed(verbs::exec(&made, &task))),
                    Err(failure) => self.bring(ticket, key, Brought::Outcome(Err(failure))),
                }
            }
            Verb::DeleteExec(key) => self.after_relays(ticket, key, || Ok(Outcome::Nothing)),
            Verb::Delete(id) => match self.made(&id) {
                Ok(made) => self.after_relays(ticket, Key::init(&id), move || verbs::delete(&made)),
                Err(failure) => self.bring(ticket, Key::init(&id), Brought::Outcome(Err(failure))),
            },
            Verb::Start(id) => self.work_on(ticket, id, verbs::start),
            Verb::KillAll(id, signal) => self.work_on(ticket, id, move |made| verbs::kill_all(made, signal)),
            Verb::KillRest(id) => self.work_on(ticket, id, verbs::kill_rest),
            Verb::Pids(id) => self.work_on(ticket, id, verbs::pids),
            Verb::Pause(id) => self.work_on(ticket, id, verbs::pause),
            Verb::Resume(id) => self.work_on(ticket, id, verbs::resume),
            Verb::Update(id, resources) => {
                self.work_on(ticket, id, move |made| verbs::update(made, &resources));
            }
            Verb::Stats(id) => self.work_on(ticket, id, verbs::stats),
            Verb::Checkpoint(wanted) => {
                let id = wanted.id.clone();
                self.work_on(ticket, id, move |made| checkpoint::save(made, &wanted));
            }
        }
    }

    fn restore(&mut self, ticket: Ticket, task: Arc<CreateTask>) {
        let (namespace, pod, key) = (self.namespace.clone(), self.pod_bundle(), Key::init(&task.id));
        match Cancel::new() {
            Ok(cancel) => {
                self.restoring.insert(ticket, cancel.clone());
                self.work(ticket, key, move || {
                    Brought::Created(Box::new(restore::restore(&task, &namespace, pod, cancel)))
                });
            }
            Err(error) => self.bring(ticket, key, Brought::Outcome(Err(error.into()))),
        }
    }

    /// Of the pod, where this shim has one: its containers share its files.
    fn pod_bundle(&self) -> Option<PathBuf> {
        self.held.as_ref().map(|held| held.bundle().into())
    }

    fn made(&self, id: &str) -> Result<Made> {
        let live = self.live.get(&Key::init(id)).and_then(|live| live.made.clone());
        live.ok_or_else(|| Failure::not_found(format!("container {id} does not exist")))
    }

    fn work_on(
        &self,
        ticket: Ticket,
        id: String,
        verb: impl FnOnce(&Made) -> Result<Outcome> + Send + 'static,
    ) {
        let key = Key::init(&id);
        match self.made(&id) {
            Ok(made) => self.work(ticket, key, move || Brought::Outcome(verb(&made))),
            Err(failure) => self.bring(ticket, key, Brought::Outcome(Err(failure))),
        }
    }

    /// On a worker.
    fn work(&self, ticket: Ticket, key: Key, verb: impl FnOnce() -> Brought + Send + 'static) {
        let (brought, begun) = (self.brought.clone(), Instant::now());
        tokio::spawn(async move {
            let done = worker::verb(verb).await.unwrap_or_else(|failure| Brought::Outcome(Err(failure)));
            let _ = brought.send((ticket, key, begun, done));
        });
    }

    fn bring(&self, ticket: Ticket, key: Key, brought: Brought) {
        let _ = self.brought.send((ticket, key, Instant::now(), brought));
    }

    /// On a worker, when what the process has written is passed on.
    fn after_relays(
        &mut self,
        ticket: Ticket,
        key: Key,
        verb: impl FnOnce() -> Result<Outcome> + Send + 'static,
    ) {
        // Of a container, those of its execs that were not deleted too.
        let ends = |one: &Key| *one == key || key.is_init() && one.id == key.id;
        let ending = self.live.iter_mut().filter(|(one, _)| ends(one));
        let ending = ending.map(|(_, live)| tokio::spawn(std::mem::take(&mut live.relays).finish()));
        let ending: Vec<_> = ending.collect();
        let (brought, begun) = (self.brought.clone(), Instant::now());
        tokio::spawn(async move {
            for one in ending {
                let _ = one.await;
            }
            let done = worker::verb(verb).await.and_then(|result| result);
            let _ = brought.send((ticket, key, begun, Brought::Outcome(done)));
        });
    }

    fn take(&mut self, ticket: Ticket, key: Key, begun: Instant, brought: Brought) {
        self.restoring.remove(&ticket);
        let result = match brought {
            Brought::Held(token, held) => return self.take_held(token, held),
            Brought::Lost => return self.step_pod(pod::Input::Lost),
            Brought::Released => return self.step_pod(pod::Input::Released),
            Brought::Outcome(result) => result,
            Brought::Created(created) => {
                match (*created).map(|created| self.take_created(&key, ticket, created)) {
                    Ok(Err(undo)) => return self.work(ticket, key, *undo),
                    Ok(Ok(outcome)) => Ok(outcome),
                    Err(failure) => Err(failure),
                }
            }
            Brought::Executed(executed) => {
                executed.and_then(|executed| self.take_executed(&key, ticket, executed))
            }
        };
        let ms = begun.elapsed().as_millis().to_string();
        if let Err(failure) = &result {
            log::info(
                "a verb failed",
                &[("id", &key.id), ("exec", &key.exec), ("ms", &ms), ("error", &failure.text)],
            );
        } else {
            log::debug("done", &[("id", &key.id), ("exec", &key.exec), ("ms", &ms)]);
        }
        self.step(Input::Done(ticket, result));
    }

    /// Where it cannot be watched, the error is what a worker has to do. That one brings the first error when the
    /// container is deleted: a client that tries again may use the same id.
    fn take_created(
        &mut self,
        key: &Key,
        ticket: Ticket,
        created: Created,
    ) -> std::result::Result<Outcome, Box<impl FnOnce() -> Brought + Send + use<>>> {
        let Created { made, ends, terminal, oom, outcome, undo } = created;
        let relays = match Relays::begin(ends, terminal) {
            Ok(relays) => relays,
            Err(failure) => {
                return Err(Box::new(move || {
                    let _ = undo(&made);
                    Brought::Outcome(Err(failure))
                }));
            }
        };
        let mut live = Live::new(Process::Init(made.container.clone()), Some(made), relays);
        live.watch(key.clone(), ticket, oom, self.inputs.clone());
        self.live.insert(key.clone(), live);
        Ok(outcome)
    }

    fn take_executed(&mut self, key: &Key, ticket: Ticket, executed: Executed) -> Result<Outcome> {
        let Executed { process, ends, terminal } = executed;
        let relays = Relays::begin(ends, terminal).inspect_err(|_| {
            // It may have ended already.
            let _ = process.kill(libruntime::Signal::KILL);
        })?;
        let pid = process.pid() as u32;
        let mut live = Live::new(Process::Exec(process), None, relays);
        live.watch(key.clone(), ticket, None, self.inputs.clone());
        self.live.insert(key.clone(), live);
        Ok(Outcome::Pid(pid))
    }
}
