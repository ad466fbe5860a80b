//! A program that comes with `start`, as the stage reads it: pure, as the planners of processes are.

use super::process::{candidates, environment};
use crate::error::{Error, ErrorKind, Result};
use crate::step::{MAX_PROGRAM, StartHeader};
use oci_spec::runtime::Process;
use std::os::unix::ffi::OsStrExt;

/// What `start` sends.
pub struct StartProgram {
    pub header: StartHeader,
    pub bytes: Vec<u8>,
}

/// `process` is checked. `enters`: its working directory is another one than that of the created process.
pub fn program(process: &Process, more_env: Option<String>, enters: bool) -> Result<StartProgram> {
    let args = process.args().as_deref().unwrap_or_default();
    let mut env = environment(process.env().as_deref().unwrap_or_default());
    env.extend(more_env);
    let mut bytes = Vec::new();
    let mut sizes = [0; 4];
    let cwd = process.cwd().as_os_str().as_bytes();
    let paths = candidates(args.first().map_or("", String::as_str), &env);
    // An empty HOME is left out, so that the home directory that was looked up is used.
    let env = env.iter().filter(|entry| *entry != "HOME=").map(String::as_bytes);
    let lists: [&mut dyn Iterator<Item = &[u8]>; 4] = [
        &mut enters.then_some(cwd).into_iter(),
        &mut paths.texts(),
        &mut args.iter().map(String::as_bytes),
        &mut env.into_iter(),
    ];
    for (size, list) in sizes.iter_mut().zip(lists) {
        let before = bytes.len();
        for text in list {
            bytes.extend_from_slice(text);
            bytes.push(0);
        }
        *size = u32::try_from(bytes.len() - before).unwrap_or(u32::MAX);
    }
    if bytes.len() > MAX_PROGRAM {
        let message =
            format!("args, env and the paths to try need {} bytes; {MAX_PROGRAM} are sent", bytes.len());
        return Err(Error::new(ErrorKind::InvalidConfig, message).at("process.args"));
    }
    Ok(StartProgram { header: StartHeader { sizes }, bytes })
}
