//! The state of the stage between two steps: descriptors, and nothing that a decision could depend on.

use crate::kernel::*;
use crate::paths::{self, Last};
use crate::program::Program;
use core::sync::atomic::{AtomicU64, Ordering};
use onggi_stage::{
    CHANNEL, Fd, Kept, MAX_FDS, MAX_KEPT, MAX_SOURCES, PROCFS, Place, REPORT_SIZE, ROOT, Report, Source,
};

pub struct State {
    /// The descriptors handed over, by [`Fd`]. Everything is initially zero, which takes no space in the file.
    handed: [i32; MAX_FDS],
    /// Mounts that are opened and not yet attached, by [`Source`]; 0 where there is none. Only written pages take
    /// memory.
    sources: [i32; MAX_SOURCES],
    /// The socket for reports: to the library, and from `start` on to the starter.
    pub channel: i32,
    /// The clone of the container's root that is not attached yet, and the directory that it will be attached over.
    pub rootfs: i32,
    pub rootfs_place: i32,
    /// The container's root.
    pub root: i32,
    pub last: Last,
    /// The scratch directory that holds parked sources.
    pub scratch: i32,
    /// The mount that was attached last.
    pub attached: i32,
    /// Mounts that are kept, as [`Kept`] counts them; the root is not in here.
    kept: [i32; MAX_KEPT],
    /// The first masks; later ones are clones of these.
    pub masked_file: Option<i32>,
    pub masked_directory: Option<i32>,
    /// The slave side of the container's pty.
    pub console: i32,
    /// The `HOME=…` entry that was looked up; empty when there is none.
    pub home: [u8; HOME_SIZE],
    pub home_length: usize,
    /// The program that came with `start`.
    pub program: Option<Program>,
    /// The number of the step that is being done.
    pub at: u32,
    /// Where the times of steps are written for the library.
    times: Option<&'static [AtomicU64]>,
}

pub const HOME_SIZE: usize = 1024;

impl State {
    pub const EMPTY: Self = Self {
        handed: [0; MAX_FDS],
        sources: [0; MAX_SOURCES],
        channel: 0,
        rootfs: 0,
        rootfs_place: 0,
        root: 0,
        last: Last::NONE,
        scratch: 0,
        attached: 0,
        kept: [0; MAX_KEPT],
        masked_file: None,
        masked_directory: None,
        console: 0,
        home: [0; HOME_SIZE],
        home_length: 0,
        program: None,
        at: 0,
        times: None,
    };

    /// Maps the file for the times of steps, and closes its descriptor.
    pub fn record_times(&mut self, fd: i32) {
        if fd >= 0 {
            self.times = map_shared(fd).ok();
            close_later(fd);
            self.record_time(0);
        }
    }

    /// Makes no system call where no times are wanted.
    pub fn record_time(&self, at: u32) {
        if let Some(slot) = self.times.and_then(|times| times.get(at as usize)) {
            slot.store(real_time(), Ordering::Relaxed);
        }
    }

    /// Called before a seccomp filter is loaded, which may refuse clock_gettime(2).
    pub fn stop_recording(&mut self) {
        self.times = None;
    }

    pub fn take_handed(&mut self, fds: &[u8]) {
        for (slot, bytes) in self.handed.iter_mut().zip(fds.as_chunks::<4>().0) {
            *slot = i32::from_ne_bytes(*bytes);
        }
        self.channel = self.fd(CHANNEL);
    }

    pub fn fd(&self, fd: Fd) -> i32 {
        self.handed.get(usize::from(fd.0)).copied().unwrap_or(-1)
    }

    pub fn set_fd(&mut self, fd: Fd, number: i32) {
        if let Some(slot) = self.handed.get_mut(usize::from(fd.0)) {
            *slot = number;
        }
    }

    pub fn procfs(&self) -> i32 {
        self.fd(PROCFS)
    }

    pub fn put_source(&mut self, source: Source, fd: i32) -> Done {
        let slot = self.sources.get_mut(usize::from(source.0));
        *slot.ok_or(Failed { call: Sysno::open_tree, errno: E2BIG })? = fd;
        Ok(())
    }

    pub fn source(&self, source: Source) -> Done<i32> {
        let found = self.sources.get(usize::from(source.0)).copied().filter(|fd| *fd > 0);
        found.ok_or(Failed { call: Sysno::open_tree, errno: EBADF })
    }

    pub fn take_source(&mut self, source: Source) -> Done<i32> {
        let found = self.source(source)?;
        self.put_source(source, 0)?;
        Ok(found)
    }

    /// Closes the one before, unless it is kept.
    pub fn set_attached(&mut self, mount: i32) {
        if self.attached > 0 {
            close_later(self.attached);
        }
        self.attached = mount;
    }

    pub fn keep_attached(&mut self, mount: Kept) -> Done {
        let slot = self.kept.get_mut(usize::from(mount.0)).filter(|_| self.attached > 0);
        *slot.ok_or(Failed { call: Sysno::move_mount, errno: E2BIG })? = core::mem::take(&mut self.attached);
        Ok(())
    }

    /// Opens a place with `O_PATH`.
    pub fn open(&self, place: &Place<&[u8]>) -> Done<i32> {
        if place.mount == ROOT {
            return paths::resolve(self.root, place.path);
        }
        let mount = self.kept.get(usize::from(place.mount.0)).copied().filter(|fd| *fd > 0);
        let mount = mount.ok_or(Failed { call: Sysno::openat2, errno: EBADF })?;
        match place.path.get(usize::from(place.skip)..) {
            // The mount itself, which may be of a file.
            None | Some(b"\0") => duplicate(mount, 0),
            Some(rest) => paths::resolve(mount, rest),
        }
    }

    /// A datagram is sent as a whole or not at all. Where the reader is gone, nothing is to be done.
    pub fn report(&self, report: Report) -> Done {
        let bytes: [u8; REPORT_SIZE] = report.encode();
        // 0x4000: MSG_NOSIGNAL
        call(Call::sendto, [self.channel as usize, bytes.as_ptr() as usize, bytes.len(), 0x4000, 0, 0])
            .map(drop)
    }

    pub fn report_failed(&self, failed: Failed) -> Done {
        self.report(Report::Failed { step: self.at, call: failed.call as u32, errno: failed.errno })
    }

    /// Waits until the library sends the byte to go on. End of file means that the library is gone.
    pub fn wait(&self) -> Done {
        let mut word = [0u8; 1];
        match read(self.channel, &mut word)? {
            1 => Ok(()),
            _ => Err(Failed { call: Sysno::read, errno: EPROTO }),
        }
    }
}
