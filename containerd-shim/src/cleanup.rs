//! `delete`: what a shim that is gone has left of a container, and, where the container is the pod's first, of the
//! whole group: containerd calls this for no other one of it. Works with a bundle or a store that is gone.

use crate::args::Args;
use crate::failure::Result;
use crate::record::Record;
use crate::wire::DeleteAnswer;
use crate::{start, verbs};
use prost::Message;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const KILLED: u32 = 128 + libc::SIGKILL as u32;

/// Returns what is to be printed.
pub fn delete(args: &Args) -> Result<Vec<u8>> {
    let bundle = match args.bundle.is_empty() {
        true => std::env::current_dir().unwrap_or_default(),
        false => PathBuf::from(&args.bundle),
    };
    let record = Record::read(&bundle, &args.namespace);
    if record.group == args.id {
        delete_others(&record, &bundle, args);
    }
    let pid = verbs::remove(&record, &bundle, &args.id);
    start::remove_unanswered(&bundle);
    let exited_at = Some(SystemTime::now().into());
    Ok(DeleteAnswer { pid, exit_status: KILLED, exited_at }.encode_to_vec())
}

/// Their bundles lie beside this one.
fn delete_others(record: &Record, bundle: &Path, args: &Args) {
    let entries = bundle.parent().and_then(|parent| std::fs::read_dir(parent).ok());
    for entry in entries.into_iter().flatten().flatten() {
        let (other, id) = (entry.path(), entry.file_name());
        let Some(id) = id.to_str().filter(|id| *id != args.id) else { continue };
        if Record::read(&other, &args.namespace).group == record.group {
            verbs::remove(record, &other, id);
        }
    }
}
