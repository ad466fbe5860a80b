//! Events on their way to containerd: in order, again and again until they are taken. Where containerd is away they
//! wait, up to a bound; what is dropped then, it asks for by `State` and `Wait` when it is back.

use crate::log;
use crate::model::Event;
use crate::wire::{Any, CreateTask, Mount, Timestamp};
use prost::Message;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;
use ttrpc::r#async::Client;

/// Some 100 kB.
const WAITING: usize = 1024;
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Long: an event that a slow containerd has not answered would be sent again, and come twice, and after later ones. A
/// containerd that is gone closes the connection.
const CALL: Duration = Duration::from_secs(120);
/// For an event that containerd refuses.
const TRIES: u32 = 5;

#[derive(Clone, PartialEq, Message)]
struct Forward {
    #[prost(message, optional, tag = "1")]
    envelope: Option<Envelope>,
}

#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(message, optional, tag = "1")]
    timestamp: Option<Timestamp>,
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(string, tag = "3")]
    topic: String,
    #[prost(message, optional, tag = "4")]
    event: Option<Any>,
}

/// The messages of events are alike: texts, numbers and a time under numbers of their own.
#[derive(Clone, PartialEq, Message)]
struct TaskCreate {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(string, tag = "2")]
    bundle: String,
    #[prost(message, repeated, tag = "3")]
    rootfs: Vec<Mount>,
    #[prost(message, optional, tag = "4")]
    io: Option<TaskIo>,
    #[prost(string, tag = "5")]
    checkpoint: String,
    #[prost(uint32, tag = "6")]
    pid: u32,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct TaskIo {
    #[prost(string, tag = "1")]
    stdin: String,
    #[prost(string, tag = "2")]
    stdout: String,
    #[prost(string, tag = "3")]
    stderr: String,
    #[prost(bool, tag = "4")]
    terminal: bool,
}

/// TaskStart; with a pid of 0 also those of an id alone.
#[derive(Clone, PartialEq, Eq, Message)]
struct TaskStart {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(uint32, tag = "2")]
    pid: u32,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct TaskExec {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(string, tag = "2")]
    exec_id: String,
    #[prost(uint32, tag = "3")]
    pid: u32,
}

#[derive(Clone, PartialEq, Message)]
struct TaskExit {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(string, tag = "2")]
    id: String,
    #[prost(uint32, tag = "3")]
    pid: u32,
    #[prost(uint32, tag = "4")]
    exit_status: u32,
    #[prost(message, optional, tag = "5")]
    exited_at: Option<Timestamp>,
}

#[derive(Clone, PartialEq, Message)]
struct TaskDelete {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(uint32, tag = "2")]
    pid: u32,
    #[prost(uint32, tag = "3")]
    exit_status: u32,
    #[prost(message, optional, tag = "4")]
    exited_at: Option<Timestamp>,
}

/// Topic and message.
fn encode(event: Event) -> (&'static str, Any) {
    let of_id = |id| TaskStart { container_id: id, pid: 0 };
    match event {
        Event::Create { task, pid } => ("/tasks/create", any("TaskCreate", &task_create(&task, pid))),
        Event::Start { id, pid } => ("/tasks/start", any("TaskStart", &TaskStart { container_id: id, pid })),
        Event::ExecAdded(key) => {
            let added = TaskExec { container_id: key.id, exec_id: key.exec, pid: 0 };
            ("/tasks/exec-added", any("TaskExecAdded", &added))
        }
        Event::ExecStarted { key, pid } => {
            let started = TaskExec { container_id: key.id, exec_id: key.exec, pid };
            ("/tasks/exec-started", any("TaskExecStarted", &started))
        }
        Event::Exit { key, pid, exit } => {
            let id = if key.is_init() { key.id.clone() } else { key.exec };
            let exited_at = Some(exit.at.into());
            let exit = TaskExit { container_id: key.id, id, pid, exit_status: exit.status, exited_at };
            ("/tasks/exit", any("TaskExit", &exit))
        }
        Event::Delete { id, pid, exit } => {
            let exited_at = Some(exit.at.into());
            let delete = TaskDelete { container_id: id, pid, exit_status: exit.status, exited_at };
            ("/tasks/delete", any("TaskDelete", &delete))
        }
        Event::Paused(id) => ("/tasks/paused", any("TaskPaused", &of_id(id))),
        Event::Resumed(id) => ("/tasks/resumed", any("TaskResumed", &of_id(id))),
        Event::Oom(id) => ("/tasks/oom", any("TaskOOM", &of_id(id))),
        Event::Checkpointed { id, path } => {
            let done = TaskExec { container_id: id, exec_id: path, pid: 0 };
            ("/tasks/checkpointed", any("TaskCheckpointed", &done))
        }
    }
}

fn any(name: &str, message: &impl Message) -> Any {
    Any::of(&format!("containerd.events.{name}"), message)
}

fn task_create(task: &CreateTask, pid: u32) -> TaskCreate {
    let (stdin, stdout, stderr) = (task.stdin.clone(), task.stdout.clone(), task.stderr.clone());
    TaskCreate {
        container_id: task.id.clone(),
        bundle: task.bundle.clone(),
        rootfs: task.rootfs.clone(),
        io: Some(TaskIo { stdin, stdout, stderr, terminal: task.terminal }),
        checkpoint: task.checkpoint.clone(),
        pid,
    }
}

/// The queue; clones share it.
#[derive(Clone)]
pub struct Events {
    queue: Arc<Mutex<VecDeque<Vec<u8>>>>,
    changed: Arc<Notify>,
    namespace: String,
}

impl Events {
    pub fn new(namespace: String) -> Self {
        Self { queue: Arc::default(), changed: Arc::default(), namespace }
    }

    pub fn publish(&self, event: Event) {
        let (topic, event) = encode(event);
        let envelope = Envelope {
            timestamp: Some(SystemTime::now().into()),
            namespace: self.namespace.clone(),
            topic: topic.into(),
            event: Some(event),
        };
        let mut queue = self.lock();
        if queue.len() >= WAITING {
            queue.pop_front();
            log::warn("an event is dropped: containerd takes none", &[]);
        }
        queue.push_back(Forward { envelope: Some(envelope) }.encode_to_vec());
        self.changed.notify_waiters();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Vec<u8>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first one; it may have been dropped meanwhile.
    fn remove(&self, sent: &[u8]) {
        let mut queue = self.lock();
        if queue.front().is_some_and(|first| first == sent) {
            queue.pop_front();
        }
    }

    /// Until all are taken, or `limit` is over.
    pub async fn drain(&self, limit: Duration) {
        let empty = async {
            while !self.lock().is_empty() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let _ = tokio::time::timeout(limit, empty).await;
    }

    /// Sends events to `address` for as long as the shim lives.
    pub async fn forward(self, address: String) {
        let address = format!("unix://{}", address.trim_start_matches("unix://"));
        let (mut client, mut pause, mut refused) = (None, Duration::from_millis(50), 0);
        loop {
            let changed = self.changed.notified();
            let first = self.lock().front().cloned();
            let Some(payload) = first else {
                changed.await;
                continue;
            };
            match send(&mut client, &address, payload.clone()).await {
                Ok(()) => {
                    (pause, refused) = (Duration::from_millis(50), 0);
                    self.remove(&payload);
                }
                // It would be refused for ever, and those behind it would wait.
                Err(error @ ttrpc::Error::RpcStatus(_)) if refused + 1 == TRIES => {
                    log::warn("an event is dropped: containerd refuses it", &[("error", &error.to_string())]);
                    self.remove(&payload);
                    refused = 0;
                }
                Err(error) => {
                    refused = if matches!(error, ttrpc::Error::RpcStatus(_)) { refused + 1 } else { 0 };
                    client = None;
                    log::debug("an event is not taken", &[("error", &error.to_string())]);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}

async fn send(client: &mut Option<Client>, address: &str, payload: Vec<u8>) -> ttrpc::Result<()> {
    let connected = match client.take() {
        Some(connected) => connected,
        None => Client::connect(address).await?,
    };
    let mut request = ttrpc::Request::new();
    request.service = "containerd.services.events.ttrpc.v1.Events".into();
    request.method = "Forward".into();
    request.timeout_nano = CALL.as_nanos() as i64;
    request.payload = payload;
    connected.request(request).await?;
    *client = Some(connected);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_behind_one_that_was_dropped_meanwhile_stays() {
        let events = Events::new("x".into());
        events.publish(Event::Oom("first".into()));
        let sent = events.lock().front().cloned().unwrap();
        (0..WAITING).for_each(|_| events.publish(Event::Oom("later".into())));
        events.remove(&sent);
        assert_eq!(events.lock().len(), WAITING);
        let next = events.lock().front().cloned().unwrap();
        events.remove(&next);
        assert_eq!(events.lock().len(), WAITING - 1);
    }
}
