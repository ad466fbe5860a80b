//! The owner of the files behind standard input, output and error: opening `/dev/stdout` needs permissions of the file
//! behind it.

use crate::kernel::*;
use linux_raw_sys::general as k;

/// Gives the files of the standard streams to the process' user, as the peers do. The group stays, as with runc.
///
/// A device keeps its owner, because other processes use it too. So does the caller's controlling terminal, which a
/// shell of the host goes on using: a new owner could read what is typed there.
pub fn chown(uid: u32) -> Done {
    const KEEP: u32 = u32::MAX;
    for stream in 0..3 {
        let Ok(found) = statx(stream) else { continue };
        if found.stx_uid != uid && is_of_the_process(stream, &found) {
            // Best effort: a stream that keeps its owner works, and only cannot be opened again.
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

/// Whether it is a pty and not the caller's controlling terminal: for another terminal `TIOCGSID` returns ENOTTY.
fn is_terminal_of_others(stream: i32, major: u32) -> bool {
    // Unix98 pty slaves (Documentation/admin-guide/devices.txt of the kernel); other terminals may be shared.
    let is_pty = (136..144).contains(&major);
    is_pty && terminal_session(stream).is_err()
}
