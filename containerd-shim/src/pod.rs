//! A pod without a pause container, as the Sandbox service describes it: (state, input) to (state, actions). One shim
//! has one at most.
//!
//! Pure: makes no call and asks no clock. daemon.rs does what it says.

use crate::failure::{Code, Failure, Result};
use crate::model::{Exit, PodCall, PodReply, Reply, Token};
use crate::wire::CreateSandbox;
use std::sync::Arc;
use std::time::SystemTime;

#[derive(Debug)]
pub enum Input {
    Call(Token, PodCall),
    /// The namespaces are there: the id of the thread that holds them.
    Held(Token, Result<u32>),
    /// Its init has ended by itself, and all processes of its pid namespace with it.
    Lost,
    Released,
    /// Nobody took the answer.
    Unanswered(Token),
}

#[derive(Debug)]
pub enum Action {
    Answer(Token, Result<Reply>),
    /// `Input::Held` is wanted.
    Hold(Token, Arc<CreateSandbox>),
    /// `Input::Released` is wanted.
    Release,
    /// The statistics of its cgroup are the answer.
    Measure(Token, String),
    Exit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Creating,
    Created,
    Ready,
    Stopping,
    Stopped,
}

struct Sandbox {
    id: String,
    phase: Phase,
    pid: u32,
    started_at: Option<SystemTime>,
    exit: Option<Exit>,
    /// Of `WaitSandbox`, which may stay for months.
    waits: Vec<Token>,
    /// Of `StopSandbox` and `ShutdownSandbox`.
    stops: Vec<Token>,
    /// The shim ends with it.
    is_shut_down: bool,
}

#[derive(Default)]
pub struct Pod {
    sandbox: Option<Sandbox>,
    actions: Vec<Action>,
}

impl Pod {
    /// `now` is the time of the input.
    pub fn step(&mut self, input: Input, now: SystemTime) -> Vec<Action> {
        match input {
            Input::Call(token, call) => {
                if let Err(failure) = self.call(token, call, now) {
                    self.answer(token, Err(failure));
                }
            }
            Input::Held(token, result) => self.held(token, result),
            Input::Lost => self.lost(),
            Input::Released => self.released(now),
            Input::Unanswered(token) => {
                if let Some(sandbox) = &mut self.sandbox {
                    sandbox.waits.retain(|wait| *wait != token);
                }
            }
        }
        std::mem::take(&mut self.actions)
    }

    /// The shim is needed, with or without containers.
    pub fn is_there(&self) -> bool {
        self.sandbox.as_ref().is_some_and(|sandbox| !sandbox.is_shut_down)
    }

    /// For whoever looks for a fault.
    pub fn line(&self) -> Option<String> {
        let Sandbox { id, phase, pid, waits, .. } = self.sandbox.as_ref()?;
        Some(format!("sandbox={id} pid={pid} phase={phase:?} waits={}", waits.len()))
    }

    fn answer(&mut self, token: Token, result: Result<Reply>) {
        self.actions.push(Action::Answer(token, result));
    }

    fn sandbox(&mut self, id: &str) -> Result<&mut Sandbox> {
        let missing = || Failure::not_found(format!("sandbox {id} does not exist"));
        self.sandbox.as_mut().filter(|sandbox| sandbox.id == id).ok_or_else(missing)
    }

    fn call(&mut self, token: Token, call: PodCall, now: SystemTime) -> Result<()> {
        let reply = match call {
            PodCall::Create(wanted) => return self.create(token, wanted),
            PodCall::Start(id) => self.start(&id, now)?,
            PodCall::Status(id) => self.sandbox(&id).map(|sandbox| Reply::Pod(sandbox.status()))?,
            PodCall::Platform(id) => self.sandbox(&id).map(|_| Reply::Pod(PodReply::Platform))?,
            PodCall::Ping(id) => self.sandbox(&id).map(|_| Reply::Nothing)?,
            PodCall::Wait(id) => {
                let sandbox = self.sandbox(&id)?;
                match sandbox.exit {
                    Some(exit) => Reply::Exit(exit),
                    None => {
                        sandbox.waits.push(token);
                        return Ok(());
                    }
                }
            }
            PodCall::Metrics(id) => {
                let sandbox = self.sandbox(&id)?;
                if !sandbox.is_held() {
                    let phase = sandbox.phase;
                    return Err(Failure::precondition(format!("a sandbox that is {phase:?} has no metrics")));
                }
                self.actions.push(Action::Measure(token, id));
                return Ok(());
            }
            PodCall::Stop(id) => return self.stop(token, &id, false),
            PodCall::Shutdown(id) if self.sandbox(&id).is_err() => {
                // Its Create has failed: the shim is of no use.
                self.answer(token, Ok(Reply::Nothing));
                if self.sandbox.is_none() {
                    self.actions.push(Action::Exit);
                }
                return Ok(());
            }
            PodCall::Shutdown(id) => return self.stop(token, &id, true),
        };
        self.answer(token, Ok(reply));
        Ok(())
    }

    fn create(&mut self, token: Token, wanted: Arc<CreateSandbox>) -> Result<()> {
        if let Some(sandbox) = &self.sandbox {
            return Err(Failure::new(Code::AlreadyExists, format!("sandbox {} already exists", sandbox.id)));
        }
        self.sandbox = Some(Sandbox {
            id: wanted.sandbox_id.clone(),
            phase: Phase::Creating,
            pid: 0,
            started_at: None,
            exit: None,
            waits: Vec::new(),
            stops: Vec::new(),
            is_shut_down: false,
        });
        self.actions.push(Action::Hold(token, wanted));
        Ok(())
    }

    fn held(&mut self, token: Token, result: Result<u32>) {
        let Some(sandbox) = &mut self.sandbox else { return };
        let answer = result.map(|pid| {
            sandbox.pid = pid;
            Reply::Nothing
        });
        let is_wanted = sandbox.stops.is_empty();
        if answer.is_ok() && is_wanted {
            sandbox.phase = Phase::Created;
        } else if answer.is_ok() {
            sandbox.phase = Phase::Stopping;
            self.actions.push(Action::Release);
        } else {
            // There is nothing of it; who wanted it to be stopped gets that.
            let (stops, waits) = (std::mem::take(&mut sandbox.stops), std::mem::take(&mut sandbox.waits));
            let ends = sandbox.is_shut_down;
            let missing = Failure::not_found(format!("sandbox {} does not exist", sandbox.id));
            self.sandbox = None;
            stops.into_iter().for_each(|token| self.answer(token, Ok(Reply::Nothing)));
            waits.into_iter().for_each(|token| self.answer(token, Err(missing.clone())));
            self.actions.extend(ends.then_some(Action::Exit));
        }
        self.answer(token, answer);
    }

    fn start(&mut self, id: &str, now: SystemTime) -> Result<Reply> {
        let sandbox = self.sandbox(id)?;
        if sandbox.phase != Phase::Created {
            let phase = sandbox.phase;
            return Err(Failure::precondition(format!("cannot start a sandbox that is {phase:?}")));
        }
        (sandbox.phase, sandbox.started_at) = (Phase::Ready, Some(now));
        Ok(Reply::Pod(PodReply::Started { pid: sandbox.pid, at: now }))
    }

    /// One that is stopped already is stopped.
    fn stop(&mut self, token: Token, id: &str, is_shut_down: bool) -> Result<()> {
        let sandbox = self.sandbox(id)?;
        sandbox.is_shut_down |= is_shut_down;
        match sandbox.phase {
            Phase::Stopped => {
                self.answer(token, Ok(Reply::Nothing));
                self.actions.extend(is_shut_down.then_some(Action::Exit));
            }
            _ => {
                sandbox.stops.push(token);
                if sandbox.is_held() {
                    sandbox.phase = Phase::Stopping;
                    self.actions.push(Action::Release);
                }
            }
        }
        Ok(())
    }

    /// As a stop that nobody has asked for.
    fn lost(&mut self) {
        if let Some(sandbox) = self.sandbox.as_mut().filter(|sandbox| sandbox.is_held()) {
            sandbox.phase = Phase::Stopping;
            self.actions.push(Action::Release);
        }
    }

    fn released(&mut self, now: SystemTime) {
        let Some(sandbox) = &mut self.sandbox else { return };
        let exit = Exit { status: 0, at: now };
        (sandbox.phase, sandbox.exit) = (Phase::Stopped, Some(exit));
        let (stops, waits) = (std::mem::take(&mut sandbox.stops), std::mem::take(&mut sandbox.waits));
        let ends = sandbox.is_shut_down;
        waits.into_iter().for_each(|token| self.answer(token, Ok(Reply::Exit(exit))));
        stops.into_iter().for_each(|token| self.answer(token, Ok(Reply::Nothing)));
        self.actions.extend(ends.then_some(Action::Exit));
    }
}

impl Sandbox {
    fn is_held(&self) -> bool {
        matches!(self.phase, Phase::Created | Phase::Ready)
    }

    fn status(&self) -> PodReply {
        PodReply::Status {
            id: self.id.clone(),
            // That of a thread that has ended may be another's.
            pid: if self.exit.is_none() { self.pid } else { 0 },
            is_ready: self.phase == Phase::Ready,
            started_at: self.started_at,
            exited_at: self.exit.map(|exit| exit.at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn pod(inputs: Vec<Input>) -> (Pod, Vec<Action>) {
        let mut pod = Pod::default();
        let mut actions = Vec::new();
        for (at, input) in inputs.into_iter().enumerate() {
            actions = pod.step(input, UNIX_EPOCH + Duration::from_secs(at as u64));
        }
        (pod, actions)
    }

    fn create() -> Input {
        let wanted = CreateSandbox { sandbox_id: "p".into(), ..CreateSandbox::default() };
        Input::Call(1, PodCall::Create(Arc::new(wanted)))
    }

    fn started() -> Vec<Input> {
        vec![create(), Input::Held(1, Ok(7)), Input::Call(2, PodCall::Start("p".into()))]
    }

    #[test]
    fn a_sandbox_is_ready_from_its_start_to_its_stop_and_waits_end_with_it() {
        let (mut pod, actions) = pod(started());
        assert!(matches!(actions[..], [Action::Answer(2, Ok(Reply::Pod(PodReply::Started { pid: 7, .. })))]));
        let is_ready = |pod: &mut Pod| {
            let actions = pod.step(Input::Call(9, PodCall::Status("p".into())), UNIX_EPOCH);
            match &actions[..] {
                [Action::Answer(9, Ok(Reply::Pod(PodReply::Status { is_ready, pid, .. })))] => {
                    (*is_ready, *pid)
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(is_ready(&mut pod), (true, 7));
        assert!(pod.step(Input::Call(3, PodCall::Wait("p".into())), UNIX_EPOCH).is_empty());
        assert!(matches!(
            pod.step(Input::Call(4, PodCall::Stop("p".into())), UNIX_EPOCH)[..],
            [Action::Release]
        ));
        assert!(!is_ready(&mut pod).0);
        // Another one waits for the same.
        assert!(pod.step(Input::Call(5, PodCall::Stop("p".into())), UNIX_EPOCH).is_empty());
        let at = UNIX_EPOCH + Duration::from_secs(99);
        let actions = pod.step(Input::Released, at);
        let [Action::Answer(3, Ok(Reply::Exit(exit))), Action::Answer(4, Ok(_)), Action::Answer(5, Ok(_))] =
            &actions[..]
        else {
            panic!("{actions:?}")
        };
        assert_eq!((exit.status, exit.at), (0, at));
        assert_eq!((is_ready(&mut pod), pod.is_there()), ((false, 0), true));
        let actions = pod.step(Input::Call(6, PodCall::Shutdown("p".into())), UNIX_EPOCH);
        assert!(matches!(actions[..], [Action::Answer(6, Ok(_)), Action::Exit]), "{actions:?}");
        assert!(!pod.is_there());
    }

    #[test]
    fn a_sandbox_that_loses_its_init_is_stopped_once_and_its_waits_end() {
        let (mut pod, _) = pod(started());
        assert!(pod.step(Input::Call(3, PodCall::Wait("p".into())), UNIX_EPOCH).is_empty());
        assert!(matches!(pod.step(Input::Lost, UNIX_EPOCH)[..], [Action::Release]));
        assert!(pod.step(Input::Lost, UNIX_EPOCH).is_empty());
        assert!(pod.step(Input::Call(4, PodCall::Stop("p".into())), UNIX_EPOCH).is_empty());
        let actions = pod.step(Input::Released, UNIX_EPOCH);
        assert!(matches!(
            actions[..],
            [Action::Answer(3, Ok(Reply::Exit(_))), Action::Answer(4, Ok(Reply::Nothing))]
        ));
        assert!(pod.step(Input::Lost, UNIX_EPOCH).is_empty());
    }

    #[test]
    fn metrics_are_those_of_a_sandbox_that_is_there() {
        let (mut pod, _) = pod(started());
        let metrics = |pod: &mut Pod| pod.step(Input::Call(3, PodCall::Metrics("p".into())), UNIX_EPOCH);
        assert!(matches!(&metrics(&mut pod)[..], [Action::Measure(3, id)] if id == "p"));
        pod.step(Input::Call(4, PodCall::Stop("p".into())), UNIX_EPOCH);
        assert!(matches!(&metrics(&mut pod)[..], [Action::Answer(3, Err(_))]));
    }

    #[test]
    fn a_sandbox_that_fails_is_gone_and_the_shim_ends_by_its_shutdown() {
        let (mut pod, actions) = pod(vec![create(), Input::Held(1, Err(Failure::unknown("fault")))]);
        assert!(matches!(actions[..], [Action::Answer(1, Err(_))]), "{actions:?}");
        assert!(!pod.is_there());
        let actions = pod.step(Input::Call(2, PodCall::Shutdown("p".into())), UNIX_EPOCH);
        assert!(matches!(actions[..], [Action::Answer(2, Ok(_)), Action::Exit]), "{actions:?}");
    }

    #[test]
    fn a_shutdown_while_it_is_made_releases_what_is_made() {
        let shutdown = Input::Call(2, PodCall::Shutdown("p".into()));
        let (mut pod, actions) = pod(vec![create(), shutdown, Input::Held(1, Ok(7))]);
        assert!(matches!(actions[..], [Action::Release, Action::Answer(1, Ok(_))]), "{actions:?}");
        let actions = pod.step(Input::Released, UNIX_EPOCH);
        assert!(matches!(actions[..], [Action::Answer(2, Ok(_)), Action::Exit]), "{actions:?}");
    }

    #[test]
    fn what_comes_in_the_wrong_order_or_to_another_sandbox_is_refused() {
        let (mut pod, _) = pod(started());
        let mut code = |call: PodCall| match &pod.step(Input::Call(9, call), UNIX_EPOCH)[..] {
            [Action::Answer(9, Err(failure))] => failure.code,
            other => panic!("{other:?}"),
        };
        assert_eq!(code(PodCall::Start("p".into())), Code::FailedPrecondition);
        assert_eq!(code(PodCall::Create(Arc::default())), Code::AlreadyExists);
        for call in [PodCall::Start, PodCall::Stop, PodCall::Status, PodCall::Ping, PodCall::Wait] {
            assert_eq!(code(call("q".into())), Code::NotFound);
        }
    }
}
