//! The Task service on ttrpc: which method is which call, how an answer is encoded, which code a failure has. Must not
//! block or decide.

use crate::failure::{Code, Failure, Result};
use crate::model::{Call, Key, PodCall, PodReply, Reply};
use crate::wire::{self, Any, ProcessOf};
use prost::Message;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use ttrpc::r#async::{MethodHandler, Service, TtrpcContext};

pub type Calls = mpsc::UnboundedSender<(Call, oneshot::Sender<Result<Reply>>)>;

/// The same messages under both names.
const TASK: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];
/// Services that containerd asks for and this shim has not. A name that the server does not know at all is answered
/// with InvalidArgument by the ttrpc crate; containerd tries an older version on Unimplemented alone.
const NONE: [&str; 3] =
    ["containerd.task.v4.Task", "containerd.task.v5.Task", "containerd.runtime.sandbox.v2.Sandbox"];

const SANDBOX: &str = "containerd.runtime.sandbox.v1.Sandbox";

type Parse = fn(&[u8]) -> std::result::Result<Call, prost::DecodeError>;

const METHODS: &[(&str, Parse)] = &[
    ("Create", |bytes| Ok(Call::Create(Arc::new(Message::decode(bytes)?)))),
    ("Start", |bytes| Ok(Call::Start(key(bytes)?))),
    ("State", |bytes| Ok(Call::State(key(bytes)?))),
    ("Wait", |bytes| Ok(Call::Wait(key(bytes)?))),
    ("Kill", |bytes| {
        let wire::Kill { id, exec_id: exec, signal, all } = Message::decode(bytes)?;
        Ok(Call::Kill { key: Key { id, exec }, signal: signal as i32, all })
    }),
    ("Exec", |bytes| Ok(Call::Exec(Arc::new(Message::decode(bytes)?)))),
    ("Delete", |bytes| Ok(Call::Delete(key(bytes)?))),
    ("Pids", |bytes| Ok(Call::Pids(id(bytes)?))),
    ("Pause", |bytes| Ok(Call::Pause(id(bytes)?))),
    ("Resume", |bytes| Ok(Call::Resume(id(bytes)?))),
    ("ResizePty", |bytes| {
        let wire::ResizePty { id, exec_id: exec, width, height } = Message::decode(bytes)?;
        Ok(Call::Resize { key: Key { id, exec }, rows: height as u16, columns: width as u16 })
    }),
    ("CloseIO", |bytes| {
        let wire::CloseIo { id, exec_id: exec, stdin } = Message::decode(bytes)?;
        Ok(Call::CloseIo { key: Key { id, exec }, stdin })
    }),
    ("Update", |bytes| {
        let wire::Update { id, resources } = Message::decode(bytes)?;
        Ok(Call::Update(id, resources.unwrap_or_default().value))
    }),
    ("Stats", |bytes| Ok(Call::Stats(id(bytes)?))),
    ("Checkpoint", |bytes| Ok(Call::Checkpoint(Arc::new(Message::decode(bytes)?)))),
    ("Connect", |bytes| Ok(Call::Connect(id(bytes)?))),
    ("Shutdown", |_| Ok(Call::Shutdown)),
];

const SANDBOX_METHODS: &[(&str, Parse)] = &[
    ("CreateSandbox", |bytes| Ok(Call::Pod(PodCall::Create(Arc::new(Message::decode(bytes)?))))),
    ("StartSandbox", |bytes| Ok(Call::Pod(PodCall::Start(sandbox(bytes)?)))),
    ("SandboxStatus", |bytes| Ok(Call::Pod(PodCall::Status(sandbox(bytes)?)))),
    ("Platform", |bytes| Ok(Call::Pod(PodCall::Platform(sandbox(bytes)?)))),
    ("PingSandbox", |bytes| Ok(Call::Pod(PodCall::Ping(sandbox(bytes)?)))),
    ("WaitSandbox", |bytes| Ok(Call::Pod(PodCall::Wait(sandbox(bytes)?)))),
    ("SandboxMetrics", |bytes| Ok(Call::Pod(PodCall::Metrics(sandbox(bytes)?)))),
    ("StopSandbox", |bytes| Ok(Call::Pod(PodCall::Stop(sandbox(bytes)?)))),
    ("ShutdownSandbox", |bytes| Ok(Call::Pod(PodCall::Shutdown(sandbox(bytes)?)))),
];

fn key(bytes: &[u8]) -> std::result::Result<Key, prost::DecodeError> {
    ProcessOf::decode(bytes).map(|of| Key { id: of.id, exec: of.exec_id })
}

fn id(bytes: &[u8]) -> std::result::Result<String, prost::DecodeError> {
    key(bytes).map(|key| key.id)
}

fn sandbox(bytes: &[u8]) -> std::result::Result<String, prost::DecodeError> {
    wire::IdOf::decode(bytes).map(|of| of.id)
}

struct Method {
    parse: Parse,
    calls: Calls,
}

#[async_trait::async_trait]
impl MethodHandler for Method {
    async fn handler(&self, _: TtrpcContext, request: ttrpc::Request) -> ttrpc::Result<ttrpc::Response> {
        let answer = match (self.parse)(&request.payload) {
            Ok(call) => {
                let (sender, receiver) = oneshot::channel();
                let ended = || Failure::unknown("the shim is about to end");
                let _ = self.calls.send((call, sender));
                receiver.await.unwrap_or_else(|_| Err(ended()))
            }
            Err(error) => Err(Failure::invalid(format!("{}: {error}", request.method))),
        };
        let mut response = ttrpc::Response::new();
        match answer {
            Ok(reply) => response.payload = encode(reply),
            Err(failure) => response.set_status(ttrpc::get_status(code(failure.code), failure.text)),
        }
        Ok(response)
    }
}

pub fn services(calls: &Calls) -> HashMap<String, Service> {
    let methods = |list: &[(&str, Parse)]| {
        list.iter().map(|(name, parse)| ((*name).into(), method(*parse, calls))).collect()
    };
    let of = |methods| Service { methods, streams: HashMap::new() };
    let task = TASK.iter().map(|name| ((*name).into(), of(methods(METHODS))));
    let sandbox = (SANDBOX.into(), of(methods(SANDBOX_METHODS)));
    task.chain([sandbox]).chain(NONE.iter().map(|name| ((*name).into(), of(HashMap::new())))).collect()
}

fn method(parse: Parse, calls: &Calls) -> Box<dyn MethodHandler + Send + Sync> {
    Box::new(Method { parse, calls: calls.clone() })
}

fn code(code: Code) -> ttrpc::Code {
    match code {
        Code::Unknown => ttrpc::Code::UNKNOWN,
        Code::InvalidArgument => ttrpc::Code::INVALID_ARGUMENT,
        Code::NotFound => ttrpc::Code::NOT_FOUND,
        Code::AlreadyExists => ttrpc::Code::ALREADY_EXISTS,
        Code::FailedPrecondition => ttrpc::Code::FAILED_PRECONDITION,
    }
}

fn encode(reply: Reply) -> Vec<u8> {
    match reply {
        Reply::Nothing => Vec::new(),
        Reply::Pid(pid) => wire::Pid { pid }.encode_to_vec(),
        Reply::State(state) => state.encode_to_vec(),
        Reply::Exit(exit) => {
            wire::WaitAnswer { exit_status: exit.status, exited_at: Some(exit.at.into()) }.encode_to_vec()
        }
        Reply::Deleted { pid, exit } => {
            let at = Some(exit.at.into());
            wire::DeleteAnswer { pid, exit_status: exit.status, exited_at: at }.encode_to_vec()
        }
        Reply::Pids(pids) => {
            let details =
                |exec_id| Any::of("containerd.runc.v1.ProcessDetails", &wire::ProcessDetails { exec_id });
            let info =
                |(pid, exec): (u32, Option<String>)| wire::ProcessInfo { pid, info: exec.map(details) };
            wire::PidsAnswer { processes: pids.into_iter().map(info).collect() }.encode_to_vec()
        }
        Reply::Stats(stats) => wire::StatsAnswer { stats: Some(stats) }.encode_to_vec(),
        Reply::Pod(reply) => encode_of_pod(reply),
        Reply::Connect { task_pid } => {
            let shim_pid = std::process::id();
            wire::ConnectAnswer { shim_pid, task_pid, version: String::new() }.encode_to_vec()
        }
    }
}

fn encode_of_pod(reply: PodReply) -> Vec<u8> {
    match reply {
        PodReply::Started { pid, at } => {
            wire::StartedSandbox { pid, created_at: Some(at.into()) }.encode_to_vec()
        }
        PodReply::Platform => {
            // Go's names.
            let architecture = match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            };
            let platform = wire::Platform { os: "linux".into(), architecture: architecture.into() };
            wire::PlatformAnswer { platform: Some(platform) }.encode_to_vec()
        }
        PodReply::Status { id, pid, is_ready, started_at, exited_at } => {
            let state = if is_ready { "SANDBOX_READY" } else { "SANDBOX_NOTREADY" };
            let [created_at, exited_at] = [started_at, exited_at].map(|time| time.map(Into::into));
            let state = state.into();
            wire::SandboxStatus { sandbox_id: id, pid, state, created_at, exited_at }.encode_to_vec()
        }
        PodReply::Metrics { id, at, stats } => {
            let metric = wire::Metric { timestamp: Some(at.into()), id, data: Some(stats) };
            wire::SandboxMetrics { metrics: Some(metric) }.encode_to_vec()
        }
    }
}
