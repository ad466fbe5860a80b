//! Standard input, output and error as files: `/dev/stdout` is opened by the permissions of what is behind it.

use crate::kernel::*;
use linux_raw_sys::general as k;

/// Gives the files of the standard streams to the process' user, as the peers do. The group stays, as with runc.
///
/// A device is left alone: it is there for others too. So is the caller's controlling terminal, which a shell of
/// the host goes on using: its new owner could read what is typed there.
pub fn chown(uid: u32) -> Done {
    const KEEP: u32 = u32::MAX;
    for stream in 0..3 {
        let Ok(found) = statx(stream) else { continue };
        if found.stx_uid != uid && is_of_the_process(stream, &found) {
            // Best effort: a stream that keeps its owner still works, it is only not opened again.
            let _ = fchownat(stream, b"\0", uid, KEEP);
        }
    }
    Ok(())
}

fn is_of_the_process(stream: i32, found: &k::statx) -> bool {
    match u32::from(found.stx_mode) & k::S_IFMT {
        k::S_IFIFO | k::S_IFREG | k::S_IFSOCK => true,
        k::S_IFCHR => is_terminal_of_others(stream, found.stx_rdev_major),
        _ => false,
    }
}

/// A pty without the caller sitting at it: `TIOCGSID` answers ENOTTY for what is not the controlling terminal.
fn is_terminal_of_others(stream: i32, major: u32) -> bool {
    // Unix98 pty slaves (Documentation/admin-guide/devices.txt of the kernel); no other terminal is one process' own.
    let is_pty = (136..144).contains(&major);
    is_pty && terminal_session(stream).is_err()
}
