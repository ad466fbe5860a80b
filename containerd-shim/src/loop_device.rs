//! The mount option `loop`: a file as a block device, which the kernel gives up when nothing is mounted from it.

use crate::failure::{Failure, Result};
use crate::sys::mounts;
use nix::errno::Errno;
use std::fs::File;

/// Others look for a free device as well.
const TRIES: usize = 100;

/// The device, and its path. It must be open until it is mounted.
pub fn attach(file: &str, read_only: bool) -> Result<(File, String)> {
    let opened = File::options().read(true).write(!read_only).open(file);
    let backing = opened.map_err(|error| Failure::os(format!("open {file}"), error))?;
    let control = "/dev/loop-control";
    let failed = |error| Failure::os(format!("open {control}"), error);
    let control = File::options().read(true).write(true).open(control).map_err(failed)?;
    for _ in 0..TRIES {
        let number = mounts::free_loop_device(&control)
            .map_err(|errno| Failure::os("ioctl LOOP_CTL_GET_FREE", errno))?;
        let path = format!("/dev/loop{number}");
        let opened = File::options().read(true).write(!read_only).open(&path);
        let device = opened.map_err(|error| Failure::os(format!("open {path}"), error))?;
        match mounts::configure_loop_device(&device, &backing, file, read_only) {
            Ok(()) => return Ok((device, path)),
            Err(Errno::EBUSY) => {}
            Err(errno) => {
                return Err(Failure::os(format!("ioctl LOOP_CONFIGURE {path} {file}"), errno));
            }
        }
    }
    Err(Failure::unknown(format!("no loop device is free for {file}")))
}
