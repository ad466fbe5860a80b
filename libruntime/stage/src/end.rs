//! Where the stage hands over to others: the clone that becomes the container, the sync points for the library, the
//! start, and the program.

use crate::cgroup;
use crate::kernel::*;
use crate::program;
use crate::state::State;
use linux_raw_sys::general as k;
use onggi_stage::{CHANNEL, CLONE_FLAGS, Fd, MAX_PLACED, MAX_RECEIVED, NamespaceFlags, Report, SyncPoint};

/// The child is a sibling (CLONE_PARENT), so that the library can wait for it. It goes on with the plan, and this
/// process ends.
pub fn clone(state: &State, namespaces: NamespaceFlags) -> Done {
    if crate::kernel::clone(namespaces.0 | CLONE_FLAGS)? != 0 {
        exit(0);
    }
    // The child sends this report itself, so that it arrives before its other reports.
    state.report(Report::Cloned)
}

/// As [`clone`], into a cgroup of v2.
pub fn enter_cgroup(state: &State, cgroup: i32, namespaces: NamespaceFlags) -> Done {
    cgroup::enter(cgroup, namespaces)?;
    close_later(cgroup);
    state.report(Report::Cloned)
}

pub fn sync(state: &State, point: SyncPoint) -> Done {
    // A hook can see this process meanwhile.
    close_unused();
    state.report(Report::At(point))?;
    state.wait()
}

const NOT_ALL: Failed = Failed { call: Sysno::recvmsg, errno: EPROTO };

/// struct cmsghdr.
const HEADER: usize = 16;

/// One byte with descriptors beside it (unix(7), SCM_RIGHTS).
pub fn receive_fds(state: &mut State, first: Fd, count: u16) -> Done {
    // Both architectures are 64-bit and little-endian.
    let mut control = [0u64; HEADER / 8 + MAX_RECEIVED / 2];
    // The library may have sent them ahead.
    if !receive(state.channel, &mut control, false)? {
        state.report(Report::At(SyncPoint::Cgroups))?;
        receive(state.channel, &mut control, true)?;
    }
    let [length, _, fds @ ..] = control;
    if length != (HEADER + 4 * usize::from(count)) as u64 {
        return Err(NOT_ALL);
    }
    for (at, pair) in (0..count).zip(fds.iter().flat_map(|pair| [*pair, pair >> 32])) {
        state.set_fd(Fd(first.0 + at), pair as i32);
    }
    Ok(())
}

/// One descriptor that came with a message.
pub fn receive_fd(socket: i32) -> Done<i32> {
    let mut control = [0u64; HEADER / 8 + 1];
    receive(socket, &mut control, true)?;
    match control {
        [length, _, fd] if length == (HEADER + 4) as u64 => Ok(fd as i32),
        _ => Err(NOT_ALL),
    }
}

/// Returns whether there was a message: without `wait` there may be none yet.
fn receive(socket: i32, control: &mut [u64], wait: bool) -> Done<bool> {
    // Descriptors for which there is no room are lost without an error.
    close_unused();
    match recvmsg(socket, control, wait) {
        Ok(0) => Err(NOT_ALL),
        Err(Failed { errno: EAGAIN, .. }) if !wait => Ok(false),
        other => other.map(|_| true),
    }
}

/// A starter connects, is told that it is its turn, and says when to go on. A starter that disconnects before that, or
/// says something else, is ignored.
pub fn await_start(state: &mut State, listener: i32) -> Done {
    close(state.channel);
    loop {
        state.channel = await_connection(listener)?;
        if state.report(Report::YourTurn).is_ok() {
            match program::receive(state, Some(listener)) {
                Ok(()) => {
                    close(listener);
                    return program::enter(state);
                }
                Err(failed) => {
                    // Best effort: the starter may be gone.
                    let _ = state.report_failed(failed);
                }
            }
        }
        close(state.channel);
    }
}

/// The library starts the container over the channel that it has. The container ends with the library, as long as it is
/// not started.
pub fn await_library(state: &mut State) -> Done {
    state.report(Report::At(SyncPoint::Ready))?;
    program::receive(state, None)?;
    program::enter(state)
}

/// Tries again when the host lacks memory or descriptors, since the starter has a deadline.
fn await_connection(listener: i32) -> Done<i32> {
    const PAUSE: u32 = 50;
    loop {
        match accept(listener) {
            Err(Failed { errno: ECONNABORTED, .. }) => {}
            Err(Failed { errno: EMFILE | ENFILE | ENOMEM | ENOBUFS, .. }) => sleep(PAUSE),
            other => return other,
        }
    }
}

/// The first call under the filter sends the listener: a later one could wait for the listener's agent.
pub fn set_seccomp(state: &State, program: &[u8], flags: u32, notify: bool) -> Done {
    let listener = set_filter(program, flags)?;
    if notify {
        crate::console::send_fd(state.channel, listener, b"seccomp")?;
    }
    Ok(())
}

/// Copies each descriptor above all wanted numbers first: one may have a number that another one gets.
pub fn place_fds(state: &mut State, pairs: &[u8]) -> Done {
    // One of them may have a number that is given anew here.
    close_unused();
    let pairs = pairs.as_chunks::<8>().0;
    let wanted = |pair: &[u8; 8]| {
        let [a, b, c, d, numbers @ ..] = *pair;
        (Fd(i32::from_ne_bytes([a, b, c, d]) as u16), i32::from_ne_bytes(numbers))
    };
    let above = pairs.iter().map(|pair| wanted(pair).1 as usize + 1).max().unwrap_or(3);
    let copy = |fd: i32| duplicate(fd, above);
    let channel = copy(state.channel)?;
    let mut copies = [0; MAX_PLACED];
    if pairs.len() > copies.len() {
        return Err(Failed { call: Sysno::dup3, errno: E2BIG });
    }
    for (slot, pair) in copies.iter_mut().zip(pairs) {
        *slot = copy(state.fd(wanted(pair).0))?;
    }
    for (from, pair) in copies.iter().zip(pairs) {
        call(Call::dup3, [*from as usize, wanted(pair).1 as usize, 0])?;
    }
    state.channel = channel;
    state.set_fd(CHANNEL, channel);
    Ok(())
}

/// From here on no descriptor of the host is open, which processes of the container could find below `/proc/PID/fd`.
pub fn close_fds(state: &State, passed: &[u8], keep: [i32; 2]) -> Done {
    // execve(2) closes the channel, by which the library learns that the program was executed.
    close_on_exec(state.channel)?;
    let [a, b] = keep;
    close_all_but(3, passed, &[state.channel, a, b])
}

/// Closes every descriptor from `first` on but those in the ranges of `passed`, and `kept`.
pub fn close_all_but(mut first: u32, passed: &[u8], kept: &[i32]) -> Done {
    let ranges = passed.as_chunks::<8>().0.iter().map(|range| {
        let [a, b, c, d, last @ ..] = *range;
        (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes(last))
    });
    loop {
        let singles = kept.iter().map(|fd| (*fd as u32, *fd as u32));
        let ahead = ranges.clone().chain(singles).filter(|(_, last)| *last >= first);
        let Some((start, last)) = ahead.min_by_key(|(start, _)| *start) else { break };
        if start > first {
            call(Call::close_range, [first as usize, start as usize - 1, 0])?;
        }
        first = last.saturating_add(1);
    }
    call(Call::close_range, [first as usize, u32::MAX as usize, 0])?;
    // All of them are closed.
    let _ = crate::unused::take();
    Ok(())
}

fn texts(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split_inclusive(|byte| *byte == 0)
}

/// The addresses of the texts in a list and of one more, with a zero at the end, as for execve(2). Their memory is
/// never freed, because execve(2) discards it.
fn addresses(list: &[u8], more: &[u8]) -> Done<usize> {
    let all = || texts(list).chain((!more.is_empty()).then_some(more));
    let room = map_zeros(all().count() + 1)?;
    for (slot, text) in room.iter_mut().zip(all()) {
        *slot = text.as_ptr() as usize;
    }
    Ok(room.as_ptr() as usize)
}

/// Looks for the program as [`exec`] will. If that changes until then, exec reports it.
pub fn find_program(paths: &[u8]) -> Done {
    let mut worst = ENOENT;
    for text in texts(paths) {
        const MAY_EXECUTE: usize = 1;
        let (at, address) = (AT_FDCWD as usize, path(text)?);
        match call(Call::faccessat2, [at, address, MAY_EXECUTE, k::AT_EACCESS as usize]) {
            Ok(_) if !opens_as_directory(text) => return Ok(()),
            Ok(_) | Err(Failed { errno: EACCES, .. }) => worst = EACCES,
            Err(Failed { errno: ENOENT | ENOTDIR, .. }) => {}
            Err(failed) => return Err(failed),
        }
    }
    Err(Failed { call: Sysno::faccessat2, errno: worst })
}

fn opens_as_directory(text: &[u8]) -> bool {
    openat(AT_FDCWD, text, k::O_PATH | k::O_DIRECTORY).map(close).is_ok()
}

/// The execution closes the descriptor, so that the program does not hold itself open.
pub fn exec_fd(state: &State, program: i32, args: &[u8], env: &[u8]) -> Done {
    close_on_exec(program)?;
    let home = state.home.get(..state.home_length).unwrap_or_default();
    let (argv, envp) = (addresses(args, b"")?, addresses(env, home)?);
    let nothing = c"".as_ptr() as usize;
    call(Call::execveat, [program as usize, nothing, argv, envp, k::AT_EMPTY_PATH as usize]).map(drop)
}

/// Tries one path after the other as execvp(3) does: a file that may not be executed is
/// remembered, and is the error if no other is found.
pub fn exec(state: &State, mut paths: &[u8], mut args: &[u8], mut env: &[u8]) -> Done {
    let mut home = state.home.get(..state.home_length).unwrap_or_default();
    if let Some(program) = state.program {
        (paths, args, env) = (program.paths, program.args, program.env);
        // The home directory that was looked up is for a program without another.
        if texts(env).any(|entry| entry.starts_with(b"HOME=")) {
            home = b"";
        }
    }
    let (argv, envp) = (addresses(args, b"")?, addresses(env, home)?);
    let mut worst = ENOENT;
    for path in texts(paths) {
        let Err(failed) = call(Call::execve, [path.as_ptr() as usize, argv, envp]) else { continue };
        match failed.errno {
            ENOENT | ENOTDIR => {}
            EACCES => worst = EACCES,
            _ => return Err(failed),
        }
    }
    Err(Failed { call: Sysno::execve, errno: worst })
}
