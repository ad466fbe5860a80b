use super::*;
use crate::model::{KILLED, Reply};
use crate::wire::Checkpoint;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

/// What a shim could do and see, as numbers; the world makes of them what is possible.
#[derive(Clone, Copy, Debug)]
enum Move {
    Create,
    CreateFromCheckpoint,
    Start,
    Exec(u8),
    StartExec(u8),
    Wait(u8),
    Kill,
    Pause,
    Resume,
    Delete(u8),
    Finish(u8),
    Fail(u8),
    End(u8),
    Oom,
    Late,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        1 => Just(Move::Create),
        1 => Just(Move::CreateFromCheckpoint),
        3 => Just(Move::Start),
        2 => (0..3u8).prop_map(Move::Exec),
        3 => (0..3u8).prop_map(Move::StartExec),
        2 => (0..4u8).prop_map(Move::Wait),
        1 => Just(Move::Kill),
        1 => Just(Move::Pause),
        1 => Just(Move::Resume),
        1 => (0..4u8).prop_map(Move::Delete),
        8 => (0..8u8).prop_map(Move::Finish),
        1 => (0..8u8).prop_map(Move::Fail),
        3 => (0..4u8).prop_map(Move::End),
        1 => Just(Move::Oom),
        1 => Just(Move::Late),
    ];
    proptest::collection::vec(one, 1..80)
}

/// Plays daemon, workers, kernel and containerd.
#[derive(Default)]
struct World {
    table: Table,
    token: Token,
    kills: u64,
    /// At work, oldest first.
    verbs: Vec<(Ticket, Verb)>,
    /// Processes that live, by key; those in `started` run their program.
    /// With the ticket of the verb that has made it.
    alive: BTreeMap<Key, Ticket>,
    /// Of the last Create or restoration.
    init: Ticket,
    events: Vec<String>,
    waits: BTreeMap<Token, Key>,
    open: BTreeSet<Token>,
    timers: Vec<(String, Ticket)>,
    /// Restorations that were told to end.
    cancelled: BTreeSet<Ticket>,
    is_late: bool,
    forgotten: Vec<Key>,
}

const AT: SystemTime = UNIX_EPOCH;

fn key(number: u8) -> Key {
    let exec = if number == 0 { String::new() } else { format!("e{number}") };
    Key { id: "a".into(), exec }
}

impl World {
    fn call(&mut self, call: Call) {
        self.token += 1;
        self.open.insert(self.token);
        if let Call::Wait(key) = &call {
            self.waits.insert(self.token, key.clone());
        }
        self.step(Input::Call(self.token, call));
    }

    fn step(&mut self, input: Input) {
        for action in self.table.step(input) {
            match action {
                Action::Answer(token, result) => self.answered(token, result),
                Action::Publish(event) => self.published(event),
                Action::Begin(ticket, verb) => {
                    if matches!(verb, Verb::Create(_) | Verb::Restore(_)) {
                        self.init = ticket;
                    }
                    self.verbs.push((ticket, verb));
                }
                Action::Signal(token, key, signal) => {
                    if let Some(token) = token {
                        self.answered(token, Ok(Reply::Nothing));
                    }
                    if signal == libc::SIGKILL {
                        self.end(key);
                    }
                }
                Action::StartTimer(id, ticket) => self.timers.push((id, ticket)),
                Action::Cancel(id, ticket) => {
                    self.cancelled.insert(ticket);
                    let exit = Exit { status: KILLED, at: AT };
                    self.step(Input::Ended(Key::init(&id), ticket, exit));
                }
                Action::Forget(key) => self.forgotten.push(key),
                _ => {}
            }
        }
    }

    fn answered(&mut self, token: Token, result: Result<Reply>) {
        assert!(self.open.remove(&token), "request {token} is answered twice");
        if let (Some(key), Ok(Reply::Exit(_))) = (self.waits.get(&token), result) {
            assert!(!self.alive.contains_key(key), "a wait for {key:?} has ended before it");
        }
    }

    fn end(&mut self, key: Key) {
        if let Some(ticket) = self.alive.remove(&key) {
            self.step(Input::Ended(key, ticket, Exit { status: 0, at: AT }));
        }
    }

    fn published(&mut self, event: Event) {
        let text = match event {
            Event::Create { .. } => "create a".into(),
            Event::Start { .. } => "start a".into(),
            Event::Delete { .. } => "delete a".into(),
            Event::ExecAdded(key) => format!("added {}", key.exec),
            Event::ExecStarted { key, .. } => format!("started {}", key.exec),
            Event::Exit { key, .. } if key.is_init() => "exit a".into(),
            Event::Exit { key, .. } => format!("exit {}", key.exec),
            Event::Oom(_) => "oom".into(),
            _ => return,
        };
        self.check(&text);
        self.events.push(text);
    }

    /// The order that containerd and Docker rely on, since the last creation.
    fn check(&self, event: &str) {
        let from = self.events.iter().rposition(|one| one == "create a").unwrap_or(0);
        let before = &self.events[from..];
        let last = |wanted: &str| before.iter().rposition(|one| one == wanted);
        let (what, name) = event.split_once(' ').unwrap_or((event, ""));
        match what {
            "create" => {}
            _ if last("delete a").is_some() => panic!("{event} after deletion: {before:?}"),
            "added" | "delete" => {}
            "start" => assert!(last("start a").is_none(), "started twice: {before:?}"),
            "started" => assert!(last(&format!("added {name}")).is_some(), "{event} in {before:?}"),
            "oom" => assert!(last("exit a").is_none(), "oom after exit: {before:?}"),
            _ if name == "a" => {
                assert!(last("exit a").is_none(), "init ended twice: {before:?}");
                let is_live = |exec: &u8| {
                    let started = last(&format!("started e{exec}"));
                    started.is_some() && last(&format!("exit e{exec}")) < started
                };
                let live = (1..3u8).find(is_live);
                assert!(self.is_late || live.is_none(), "init's exit before that of e{live:?}: {before:?}");
            }
            _ => {
                let started = last(&format!("started {name}"));
                assert!(started.is_some() && last(event) < started, "{event} in {before:?}");
            }
        }
    }

    fn done(&mut self, number: u8, is_good: bool) {
        if self.verbs.is_empty() {
            return;
        }
        let (ticket, verb) = self.verbs.remove(number as usize % self.verbs.len());
        if !is_good {
            return self.step(Input::Done(ticket, Err(Failure::unknown("fault"))));
        }
        let outcome = match verb {
            Verb::Create(task) if !task.checkpoint.is_empty() => {
                Outcome::Created { pid: 0, has_own_pids: true }
            }
            // What is told to end may be done already.
            Verb::Restore(_) if self.cancelled.contains(&ticket) && number.is_multiple_of(2) => {
                return self.step(Input::Done(ticket, Err(Failure::unknown("cancelled"))));
            }
            Verb::Create(_) | Verb::Restore(_) => {
                self.alive.insert(key(0), ticket);
                Outcome::Created { pid: 100, has_own_pids: number.is_multiple_of(2) }
            }
            Verb::StartExec(task) => {
                self.alive.insert(Key { id: "a".into(), exec: task.exec_id.clone() }, ticket);
                Outcome::Pid(200)
            }
            Verb::KillAll(..) => {
                for key in self.alive.clone().into_keys() {
                    self.end(key);
                }
                Outcome::Nothing
            }
            _ => Outcome::Nothing,
        };
        self.step(Input::Done(ticket, Ok(outcome)));
    }

    fn play(&mut self, one: Move) {
        match one {
            Move::Create => {
                let task = CreateTask { id: "a".into(), ..CreateTask::default() };
                // The kernel has ended what a deletion by force has left.
                self.call(Call::Create(Arc::new(task)));
            }
            Move::CreateFromCheckpoint => {
                let checkpoint = "/checkpoint".into();
                let task = CreateTask { id: "a".into(), checkpoint, ..CreateTask::default() };
                self.call(Call::Create(Arc::new(task)));
            }
            Move::Start => self.call(Call::Start(key(0))),
            Move::Exec(number) => {
                let exec_id = format!("e{}", number.max(1));
                self.call(Call::Exec(Arc::new(ExecTask { id: "a".into(), exec_id, ..ExecTask::default() })));
            }
            Move::StartExec(number) => self.call(Call::Start(key(number.max(1)))),
            Move::Wait(number) => self.call(Call::Wait(key(number))),
            Move::Kill => self.call(Call::Kill { key: key(0), signal: libc::SIGKILL, all: false }),
            Move::Pause => self.call(Call::Pause("a".into())),
            Move::Resume => self.call(Call::Resume("a".into())),
            Move::Delete(number) => self.call(Call::Delete(key(number))),
            Move::Finish(number) => self.done(number, true),
            Move::Fail(number) => self.done(number, false),
            Move::End(number) => self.end(key(number)),
            Move::Oom => {
                self.kills += 1;
                self.step(Input::Oom("a".into(), self.init, self.kills));
            }
            Move::Late => {
                if let Some((id, ticket)) = self.timers.pop() {
                    self.is_late = true;
                    self.step(Input::Late(id, ticket));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn events_are_in_order_and_every_request_is_answered_once(moves in moves()) {
        let mut world = World::default();
        for one in moves {
            world.play(one);
        }
        // All comes to its end: no wait is lost.
        for _ in 0..100 {
            while !world.verbs.is_empty() {
                world.done(0, true);
            }
            for key in world.alive.clone().into_keys() {
                world.end(key);
            }
        }
        world.call(Call::Delete(key(0)));
        while !world.verbs.is_empty() {
            world.done(0, true);
        }
        prop_assert!(world.open.is_empty(), "without an answer: {:?} {:?}", world.open, world.table.lines());
        prop_assert!(world.table.is_empty(), "{:?}", world.table.lines());
    }
}

fn world(moves: &[Move]) -> World {
    let mut world = World::default();
    for one in moves {
        world.play(*one);
    }
    world
}

#[test]
fn an_exit_before_the_answer_of_start_is_published_after_it() {
    let mut world = world(&[Move::Create, Move::Finish(0), Move::Start, Move::End(0)]);
    assert_eq!(world.events, ["create a"]);
    world.play(Move::Finish(0));
    assert_eq!(world.events, ["create a", "start a", "exit a"]);
}

#[test]
fn the_exit_of_init_waits_for_its_execs() {
    let before =
        [Move::Create, Move::Finish(0), Move::Start, Move::Finish(0), Move::Exec(1), Move::StartExec(1)];
    let mut world = world(&before);
    world.play(Move::Finish(0));
    world.play(Move::End(0));
    assert_eq!(world.events.last().map(String::as_str), Some("started e1"));
    world.play(Move::StartExec(1));
    world.play(Move::End(1));
    assert_eq!(world.events[4..], ["exit e1", "exit a"]);
}

#[test]
fn a_deletion_whose_caller_gave_up_is_answered_again_and_once() {
    let mut world = world(&[Move::Create, Move::Finish(0), Move::Delete(0), Move::Finish(0)]);
    let first = world.token;
    assert_eq!(world.events, ["create a", "exit a", "delete a"]);
    let answer = |world: &mut World| match world.table.step(Input::Call(99, Call::Delete(key(0)))).pop() {
        Some(Action::Answer(99, result)) => {
            result.map(|reply| matches!(reply, Reply::Deleted { pid: 100, .. }))
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(answer(&mut world).unwrap_err().code, Code::NotFound);
    world.table.step(Input::Unanswered(first));
    assert_eq!(answer(&mut world), Ok(true));
    assert_eq!(answer(&mut world).unwrap_err().code, Code::NotFound);
}

#[test]
fn out_of_memory_is_told_once_for_each_count() {
    let mut world = world(&[Move::Create, Move::Finish(0), Move::Start, Move::Finish(0), Move::Oom]);
    world.step(Input::Oom("a".into(), world.init, 1));
    world.play(Move::End(0));
    assert_eq!(world.events[2..], ["oom", "exit a"]);
}

#[test]
fn what_waits_behind_a_deletion_that_fails_is_done_after_it() {
    let before = [Move::Create, Move::Finish(0), Move::Start, Move::Finish(0), Move::End(0), Move::Delete(0)];
    let mut world = world(&before);
    let deletion = world.verbs.pop().expect("a deletion");
    world.call(Call::Update("a".into(), Vec::new()));
    assert!(world.verbs.is_empty());
    world.step(Input::Done(deletion.0, Err(Failure::unknown("fault"))));
    assert!(matches!(world.verbs[..], [(_, Verb::Update(..))]), "{:?}", world.verbs);
}

#[test]
fn a_wait_whose_client_has_gone_is_forgotten() {
    let mut world = world(&[Move::Create, Move::Finish(0), Move::Wait(0)]);
    assert!(world.table.lines()[0].ends_with("waits=1"), "{:?}", world.table.lines());
    world.step(Input::Unanswered(world.token));
    assert!(world.table.lines()[0].ends_with("waits=0"), "{:?}", world.table.lines());
}

const RUNNING: [Move; 4] = [Move::Create, Move::Finish(0), Move::Start, Move::Finish(0)];

#[test]
fn a_timer_does_not_end_another_container_of_the_same_id() {
    let mut world = world(&RUNNING);
    for one in [Move::Exec(1), Move::StartExec(1), Move::Finish(0), Move::End(0)] {
        world.play(one);
    }
    assert_eq!(world.timers.len(), 1);
    // The exec ends in time, and the container goes; the next one has its exit known when the timer ends.
    for one in [Move::End(1), Move::Delete(0)].into_iter().chain(RUNNING) {
        world.play(one);
        while let [(_, Verb::Delete(_)), ..] = world.verbs[..] {
            world.play(Move::Finish(0));
        }
    }
    for one in [Move::Exec(2), Move::StartExec(2), Move::Finish(0), Move::End(0)] {
        world.play(one);
    }
    let (id, ticket) = world.timers.remove(0);
    world.step(Input::Late(id, ticket));
    assert_eq!(world.events.last().map(String::as_str), Some("started e2"));
    world.play(Move::Late);
    assert_eq!(world.events.last().map(String::as_str), Some("exit a"));
}

#[test]
fn an_exec_that_was_started_when_its_container_had_gone_is_forgotten() {
    let mut world = world(&RUNNING);
    world.play(Move::Exec(1));
    world.play(Move::StartExec(1));
    let exec = world.verbs.pop().expect("an exec");
    world.play(Move::End(0));
    world.play(Move::Late);
    world.play(Move::Delete(0));
    world.play(Move::Finish(0));
    world.forgotten.clear();
    world.step(Input::Done(exec.0, Ok(Outcome::Pid(200))));
    assert_eq!(world.forgotten, [key(1)]);
}

#[test]
fn a_container_that_freezes_after_it_was_killed_is_thawed() {
    let mut world = world(&RUNNING);
    world.play(Move::Pause);
    // The signal stays: what is frozen does not take it.
    let token = world.token + 1;
    world.token = token;
    let kill = Call::Kill { key: key(0), signal: libc::SIGKILL, all: false };
    let actions = world.table.step(Input::Call(token, kill));
    let rest = actions.into_iter().find_map(|action| match action {
        Action::Begin(ticket, Verb::KillRest(_)) => Some(ticket),
        _ => None,
    });
    world.step(Input::Done(rest.expect("a KillRest"), Ok(Outcome::Nothing)));
    world.play(Move::Finish(0));
    assert!(matches!(world.verbs[..], [(_, Verb::KillRest(_))]), "{:?}", world.verbs);
}

#[test]
fn an_end_and_a_lack_of_memory_of_an_earlier_container_are_not_those_of_the_next() {
    let mut world = world(&RUNNING);
    for one in [Move::Exec(1), Move::StartExec(1), Move::Finish(0)] {
        world.play(one);
    }
    let (old, old_exec) = (world.init, world.alive[&key(1)]);
    for one in [Move::End(0), Move::End(1), Move::Delete(0), Move::Finish(0)].into_iter().chain(RUNNING) {
        world.play(one);
    }
    for one in [Move::Exec(1), Move::StartExec(1), Move::Finish(0)] {
        world.play(one);
    }
    let before = world.events.len();
    let exit = Exit { status: 0, at: AT };
    world.step(Input::Oom("a".into(), old, 7));
    world.step(Input::Ended(key(1), old_exec, exit));
    world.step(Input::Ended(key(0), old, exit));
    assert_eq!(world.events[before..], [] as [&str; 0]);
    world.play(Move::Oom);
    world.play(Move::End(1));
    world.play(Move::End(0));
    assert_eq!(world.events[before..], ["oom", "exit e1", "exit a"]);
}

#[test]
fn an_exec_needs_an_id() {
    let mut world = world(&RUNNING);
    let exec = ExecTask { id: "a".into(), ..ExecTask::default() };
    let actions = world.table.step(Input::Call(99, Call::Exec(Arc::new(exec))));
    let [Action::Answer(99, Err(failure))] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(failure.code, Code::InvalidArgument);
    assert_eq!(world.table.lines().len(), 2, "{:?}", world.table.lines());
}

fn failure(world: &mut World, call: Call) -> Failure {
    world.token += 1;
    let actions = world.table.step(Input::Call(world.token, call));
    match &actions[..] {
        [Action::Answer(_, Err(failure))] => failure.clone(),
        _ => panic!("{actions:?}"),
    }
}

const UNRESTORED: [Move; 2] = [Move::CreateFromCheckpoint, Move::Finish(0)];

fn state(world: &mut World) -> (i32, u32, u32) {
    world.token += 1;
    match &world.table.step(Input::Call(world.token, Call::State(key(0))))[..] {
        [Action::Answer(_, Ok(Reply::State(state)))] => (state.status, state.pid, state.exit_status),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_container_from_a_checkpoint_is_created_without_a_process_and_restored_at_its_start() {
    let mut world = world(&UNRESTORED);
    assert_eq!((state(&mut world), world.events.as_slice()), ((1, 0, 0), ["create a".into()].as_slice()));
    for call in [
        Call::Exec(Arc::new(ExecTask { id: "a".into(), exec_id: "e1".into(), ..ExecTask::default() })),
        Call::Kill { key: key(0), signal: libc::SIGKILL, all: false },
        // Clients take NotFound for a process that has ended, and wait for its exit.
        Call::Kill { key: key(0), signal: libc::SIGKILL, all: true },
        Call::Pids("a".into()),
        Call::Stats("a".into()),
        Call::Update("a".into(), Vec::new()),
        Call::Pause("a".into()),
        Call::Resume("a".into()),
        Call::Checkpoint(Arc::new(Checkpoint { id: "a".into(), ..Checkpoint::default() })),
    ] {
        let failure = failure(&mut world, call.clone());
        assert_eq!(failure.code, Code::FailedPrecondition, "{call:?}: {failure}");
    }
    world.play(Move::Start);
    assert!(matches!(world.verbs[..], [(_, Verb::Restore(_))]), "{:?}", world.verbs);
    world.play(Move::Finish(0));
    assert_eq!(state(&mut world), (2, 100, 0));
    for one in [Move::Exec(1), Move::StartExec(1), Move::Finish(0), Move::End(1), Move::End(0)] {
        world.play(one);
    }
    assert_eq!(world.events, ["create a", "start a", "added e1", "started e1", "exit e1", "exit a"]);
    world.play(Move::Delete(0));
    assert!(matches!(world.verbs[..], [(_, Verb::Delete(_))]), "{:?}", world.verbs);
}

/// containerd's client pauses it meanwhile.
#[test]
fn a_paused_container_can_be_saved() {
    let mut world = world(&RUNNING);
    world.play(Move::Pause);
    world.play(Move::Finish(0));
    let wanted = Arc::new(Checkpoint { id: "a".into(), ..Checkpoint::default() });
    world.call(Call::Checkpoint(wanted));
    assert!(matches!(world.verbs[..], [(_, Verb::Checkpoint(_))]), "{:?}", world.verbs);
    // Its processes may end with that.
    for one in [Move::End(0), Move::Finish(0)] {
        world.play(one);
    }
    assert_eq!(world.events[2..], ["exit a"]);
    assert!(world.open.is_empty());
}

#[test]
fn a_restoration_that_fails_can_be_tried_again_and_deleted() {
    let mut world = world(&UNRESTORED);
    for _ in 0..2 {
        world.play(Move::Start);
        assert!(matches!(world.verbs[..], [(_, Verb::Restore(_))]), "{:?}", world.verbs);
        world.play(Move::Fail(0));
        assert_eq!((state(&mut world), world.events.len()), ((1, 0, 0), 1));
    }
    world.play(Move::Delete(0));
    assert!(matches!(world.verbs[..], [(_, Verb::DeleteUnrestored(_))]), "{:?}", world.verbs);
    world.play(Move::Finish(0));
    assert_eq!(world.events, ["create a", "delete a"]);
    assert!(world.open.is_empty() && world.table.is_empty());
}

#[test]
fn a_kill_ends_a_restoration_that_is_under_way() {
    for is_done in [false, true] {
        let mut world = world(&UNRESTORED);
        for one in [Move::Wait(0), Move::Start, Move::Kill] {
            world.play(one);
        }
        assert_eq!((world.cancelled.len(), world.events.len()), (1, 1));
        world.play(Move::Finish(u8::from(is_done)));
        // Where CRIU was faster, the process is killed.
        let wanted: &[&str] = if is_done { &["start a", "exit a"] } else { &["exit a"] };
        assert_eq!(world.events[1..], *wanted);
        assert_eq!(state(&mut world).2, if is_done { 0 } else { KILLED }, "the end of the process itself");
        world.play(Move::Delete(0));
        while !world.verbs.is_empty() {
            world.play(Move::Finish(0));
        }
        assert!(world.open.is_empty() && world.table.is_empty(), "{:?}", world.table.lines());
    }
}
