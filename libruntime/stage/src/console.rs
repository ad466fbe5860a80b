//! The container's terminal. The pty is one of the container's own devpts. The kernel opens its slave side
//! (`TIOCGPTPEER`), never a name that the container could have replaced.

use crate::kernel::*;
use crate::paths::{self, Missing};
use crate::state::State;
use linux_raw_sys::general as k;

const DEVPTS_MAGIC: i64 = 0x1cd1;

pub fn open(state: &mut State, socket: i32, size: (u16, u16), uid: u32, relayed: bool) -> Done {
    let flags = k::O_RDWR | k::O_NOCTTY | k::O_CLOEXEC;
    let master = openat2(state.root, b"dev/pts/ptmx\0", flags, 0, paths::IN_ROOT)?;
    if filesystem(master)? != DEVPTS_MAGIC {
        return Err(Failed { call: Sysno::fstatfs, errno: ENODEV });
    }
    let unlock = 0i32;
    ioctl(master, Request::TIOCSPTLCK, &raw const unlock as usize)?;
    let peer = ioctl(master, Request::TIOCGPTPEER, flags as usize)? as i32;
    if size != (0, 0) {
        let (columns, rows) = size;
        let window = [rows, columns, 0, 0];
        ioctl(peer, Request::TIOCSWINSZ, window.as_ptr() as usize)?;
    }
    if relayed {
        // The second field is the output modes.
        let mut settings = terminal_settings(peer)?;
        settings[1] &= !k::ONLCR;
        ioctl(peer, Request::TCSETS, settings.as_ptr() as usize)?;
    }
    const KEEP: u32 = u32::MAX;
    fchownat(peer, b"\0", uid, KEEP)?;
    send_fd(socket, master, b"/dev/ptmx")?;
    close(master);
    close(socket);
    state.console = peer;
    Ok(())
}

/// Sends a descriptor over a unix socket, with a text (unix(7), `SCM_RIGHTS`).
pub fn send_fd(socket: i32, fd: i32, text: &[u8]) -> Done {
    const SOL_SOCKET: u64 = 1;
    const SCM_RIGHTS: u64 = 1;
    // struct cmsghdr and one int, padded; both architectures are 64-bit and little-endian.
    let control = [20u64, SCM_RIGHTS << 32 | SOL_SOCKET, fd as u32 as u64];
    let vector = [text.as_ptr() as usize, text.len()];
    // struct msghdr: name, its length, vector, count, control, its length, flags.
    let message = [0, 0, vector.as_ptr() as usize, 1, control.as_ptr() as usize, 24, 0];
    call(Call::sendmsg, [socket as usize, message.as_ptr() as usize, 0x4000]).map(drop)
}

/// Attached over a regular file. What the image has at this path is resolved inside the root, or replaced.
pub fn mount(state: &mut State) -> Done {
    let tree = open_tree(state.console, b"\0", false)?;
    let place = paths::ensure(state.root, &mut state.last, b"dev/console\0", Missing::File, true)?;
    move_mount(tree, place)?;
    close(place);
    close(tree);
    Ok(())
}

pub fn use_it(state: &mut State) -> Done {
    for standard in 0..3 {
        call(Call::dup3, [state.console as usize, standard, 0])?;
    }
    close(state.console);
    Ok(())
}

pub fn set_controlling_terminal() -> Done {
    ioctl(0, Request::TIOCSCTTY, 0).map(drop)
}
