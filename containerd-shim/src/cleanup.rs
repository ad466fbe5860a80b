//! `delete`: what a shim that is gone has left of a container, and, where the container is the pod's first, of the
//! whole group: containerd calls this for no other one of it. Works with a bundle or a store that is gone.

use crate::args::Args;
use crate::failure::Result;
use crate::model::KILLED;
use crate::record::Record;
use crate::wire::DeleteAnswer;
use crate::{pod_namespaces, start, verbs};
use prost::Message;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// For all of a pod: containerd ends us after 5 s.
const LIMIT: Duration = Duration::from_millis(3500);

/// A container whose shim is gone.
struct Left {
    record: Record,
    bundle: PathBuf,
    id: String,
}

/// Returns what is to be printed.
pub fn delete(args: &Args) -> Result<Vec<u8>> {
    let bundle = match args.bundle.is_empty() {
        true => std::env::current_dir().unwrap_or_default(),
        false => PathBuf::from(&args.bundle),
    };
    let record = Record::read(&bundle, &args.namespace);
    let others = match record.group == args.id {
        true => others(&record.group, &bundle, args),
        false => Vec::new(),
    };
    let own = Left { record, bundle, id: args.id.clone() };
    let removed = remove_together(&own, &others, Instant::now() + LIMIT);
    start::remove_unanswered(&own.bundle);
    pod_namespaces::remove_mounts(&own.bundle);
    // containerd keeps the bundle after a failure, and the next `delete` finds what it needs.
    let pid = removed?;
    let exited_at = Some(SystemTime::now().into());
    Ok(DeleteAnswer { pid, exit_status: KILLED, exited_at }.encode_to_vec())
}

/// The rest of the group: their bundles lie beside this one, or the store has them.
fn others(group: &str, bundle: &Path, args: &Args) -> Vec<Left> {
    let entries = bundle.parent().and_then(|parent| std::fs::read_dir(parent).ok());
    let ids =
        entries.into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut bundles: BTreeMap<String, PathBuf> =
        ids.map(|id| (id.clone(), bundle.with_file_name(&id))).collect();
    // Those of a pod without a pause container lie elsewhere.
    for (id, container) in Record::read(bundle, &args.namespace).runtime().containers().into_iter().flatten()
    {
        if let Ok(container) = container {
            bundles.entry(id).or_insert(container.state().bundle);
        }
    }
    bundles.remove(&args.id);
    let read =
        |(id, bundle): (String, PathBuf)| Left { record: Record::read(&bundle, &args.namespace), bundle, id };
    bundles.into_iter().map(read).filter(|left| left.record.group == group).collect()
}

/// All at once: one that cannot be killed takes its whole time. Returns the pid of the first one's init; of the others
/// an error is printed.
fn remove_together(own: &Left, others: &[Left], end: Instant) -> Result<u32> {
    let remove = |left: &Left| {
        verbs::remove(&left.record, &left.bundle, &left.id, end.saturating_duration_since(Instant::now()))
    };
    std::thread::scope(|scope| {
        let remove_other = |other: &Left| {
            if let Err(failure) = remove(other) {
                eprintln!("{failure}");
            }
        };
        for other in others {
            let thread = std::thread::Builder::new();
            if thread.spawn_scoped(scope, move || remove_other(other)).is_err() {
                remove_other(other);
            }
        }
        remove(own)
    })
}
