//! A container's program that comes from the caller and not from the root filesystem.

use crate::error::{Error, Result};
use crate::options::Program;
use crate::sys;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

/// A program that is executed in the finished container in place of what `process.args[0]` names. It has the
/// container's namespaces, root, user, capabilities and filter, as any program there, but it need not be in the
/// container's filesystem (execveat(2), `AT_EMPTY_PATH`).
#[derive(Debug)]
pub struct Init(Kind);

#[derive(Debug)]
enum Kind {
    Program(OwnedFd),
    Own(String),
}

/// What `argv[0]` begins with where a caller's own program is executed as init.
const MARK: &str = "libruntime-init:";

impl Init {
    /// An executable file that is open, with `process.args` as its arguments. It is statically linked, or its
    /// interpreter and libraries are in the container; a script (`#!`) does not work, because its descriptor is
    /// closed when the interpreter opens it.
    ///
    /// Root in the container reaches the file by `/proc/PID/exe`. Where it must not be changed, give a sealed copy
    /// (memfd_create(2), `F_SEAL_WRITE`).
    pub fn program(descriptor: impl Into<OwnedFd>) -> Self {
        Self(Kind::Program(descriptor.into()))
    }

    /// The calling program itself, which calls [`init`] with the same name at the top of its `main`. The container
    /// gets a sealed copy, so that nothing in it can change the caller's file: one for all containers, or, on Linux before 6.6
    /// and for callers without CAP_LINUX_IMMUTABLE, one for each.
    ///
    /// ```no_run
    /// use libruntime::{Init, Runtime};
    ///
    /// fn main() -> Result<(), libruntime::Error> {
    ///     libruntime::init("greet", || {
    ///         println!("hello from pid {}", std::process::id());
    ///         0
    ///     });
    ///     // Only outside of the container does the program come here.
    ///     let runtime = Runtime::new("/run/example");
    ///     let output = runtime.container("a").bundle("/srv/bundle").init(Init::own("greet")).output()?;
    ///     print!("{}", String::from_utf8_lossy(&output.stdout));
    ///     Ok(())
    /// }
    /// ```
    pub fn own(name: &str) -> Self {
        Self(Kind::Own(name.into()))
    }

    pub(crate) fn into_program(self) -> Result<Program> {
        match self.0 {
            Kind::Program(descriptor) => {
                Ok(Program { descriptor: Arc::new(descriptor), first_argument: None })
            }
            Kind::Own(name) => {
                Ok(Program { descriptor: own_program()?, first_argument: Some(format!("{MARK}{name}")) })
            }
        }
    }
}

/// A sealed copy of the calling program, for the container.
fn own_program() -> Result<Arc<OwnedFd>> {
    static SHARED: OnceLock<Arc<OwnedFd>> = OnceLock::new();
    let bytes = match SHARED.get() {
        Some(_) => Vec::new(),
        None => std::fs::read("/proc/self/exe").map_err(|error| Error::io("read /proc/self/exe", error))?,
    };
    let program = sys::program(c"libruntime-init", &bytes, &SHARED);
    program.map_err(|errno| Error::os("memfd_create libruntime-init", errno))
}

/// Runs `work` and exits with its code, if this process is a container's init by [`Init::own`] with the same name; else
/// does nothing. To be called first in `main`, before threads are started: the process begins anew in the
/// container, and shares nothing with the one that created it. `process.args` are its arguments from the second on.
pub fn init(name: &str, work: impl FnOnce() -> i32) {
    let first = std::env::args_os().next().unwrap_or_default();
    if first.to_str().and_then(|first| first.strip_prefix(MARK)) == Some(name) {
        std::process::exit(work());
    }
}
