//! A program that comes with `start`: its lists are read from the starter into memory of their own, and checked before
//! they are used. A refused program is reported to the starter, and the wait for `start` goes on.

use crate::end::find_program;
use crate::kernel::*;
use crate::state::State;
use onggi_stage::{GO, START_HEADER, START_PIECE, StartHeader};

/// Replaces the plan's program. Each element of a list ends in NUL.
#[derive(Clone, Copy)]
pub struct Program {
    /// Empty where the plan's directory is kept.
    cwd: &'static [u8],
    pub paths: &'static [u8],
    pub args: &'static [u8],
    pub env: &'static [u8],
}

/// Waits for the starter's answer: to go on, or to go on with another program. To go on costs one read(2). The starter
/// has connected to `listener`, or it is the library.
pub fn receive(state: &mut State, listener: Option<i32>) -> Done {
    // One byte more than the longest answer, so that a longer one is noticed.
    let mut word = [0u8; START_HEADER + 1];
    match read(state.channel, &mut word)? {
        1 if word[0] == GO => Ok(()),
        START_HEADER => {
            listener.map_or(Ok(()), |listener| check_owner(state.channel, listener))?;
            let header = StartHeader::decode(&word[..START_HEADER]);
            let header = header.ok_or(Failed { call: Sysno::read, errno: E2BIG })?;
            let room = map_bytes(header.total())?;
            let program = fill(state.channel, room).and_then(|()| take_apart(room, &header));
            match program {
                Ok(program) => state.program = Some(program),
                Err(failed) => {
                    unmap(room);
                    return Err(failed);
                }
            }
            Ok(())
        }
        _ => Err(NO_PROGRAM),
    }
}

/// Enters the program's working directory, and looks for the program, while its absence can be told from other
/// failures.
pub fn enter(state: &State) -> Done {
    let Some(program) = state.program else { return Ok(()) };
    if !program.cwd.is_empty() {
        call(Call::chdir, [program.cwd.as_ptr() as usize])?;
    }
    find_program(program.paths)
}

const NO_PROGRAM: Failed = Failed { call: Sysno::read, errno: EPROTO };

/// Only the user who made the listener may choose the program. The kernel gives both users, as ids of this user
/// namespace.
fn check_owner(channel: i32, listener: i32) -> Done {
    match peer_uid(channel)? == statx(listener)?.stx_uid {
        true => Ok(()),
        false => Err(Failed { call: Sysno::getsockopt, errno: EACCES }),
    }
}

/// Pieces of [`START_PIECE`] bytes, and a last one of the rest.
fn fill(channel: i32, room: &mut [u8]) -> Done {
    for piece in room.chunks_mut(START_PIECE) {
        if read(channel, piece)? != piece.len() {
            return Err(NO_PROGRAM);
        }
    }
    Ok(())
}

fn take_apart(room: &'static [u8], header: &StartHeader) -> Done<Program> {
    let mut rest = room;
    let mut list = |size: u32| {
        let (list, after) = rest.split_at_checked(size as usize).ok_or(NO_PROGRAM)?;
        rest = after;
        // Without the NUL at its end, a list would continue in the next one.
        if list.last().is_none_or(|last| *last == 0) { Ok(list) } else { Err(NO_PROGRAM) }
    };
    let [cwd, paths, args, env] = header.sizes;
    let program = Program { cwd: list(cwd)?, paths: list(paths)?, args: list(args)?, env: list(env)? };
    let is_path = program.cwd.is_empty() || program.cwd.first() == Some(&b'/');
    if !is_path || program.paths.is_empty() || program.args.is_empty() {
        return Err(NO_PROGRAM);
    }
    Ok(program)
}
