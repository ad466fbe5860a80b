//! Waits that an error of the moment must not end: a signal, or a host that has no memory or descriptors just now.

use crate::case::{Case, Need, Outcome, case, check, same, skip};
use crate::process;
use crate::test::Test;
use crate::walk::attached::fail_next;
use nix::errno::Errno;

pub const CASES: &[Case] = &[case!(an_init_goes_on_waiting_for_its_start, [Need::Root], 120)];

/// The init of a created container waits for `start`: an error of accept4(2), or of what it hears from `start`, is
/// none of the container's.
fn an_init_goes_on_waiting_for_its_start(t: &Test) -> Outcome {
    if !cfg!(target_arch = "x86_64") {
        return skip("the tracer knows the registers of x86_64 alone");
    }
    if t.runtime.name != "onggi" {
        return skip("others wait for start in other calls");
    }
    let waits = [
        ("accept4", Errno::EINTR),
        ("accept4", Errno::ECONNABORTED),
        ("accept4", Errno::EMFILE),
        ("accept4", Errno::ENFILE),
        ("accept4", Errno::ENOMEM),
        ("accept4", Errno::ENOBUFS),
        ("sendto", Errno::EINTR),
        ("read", Errno::EINTR),
    ];
    for (call, errno) in waits {
        let c = t.container(&t.shell("echo started > /started"))?;
        c.create()?.ok()?;
        let tracer = fail_next(t, c.pid()?, call, errno)?;
        let output = c.start()?;
        let traced = tracer.finish(process::LIMIT)?;
        check!(traced.code == 0, "{call} {errno:?}: {}", traced.text());
        check!(output.code == 0, "{call} {errno:?}: start: {}", output.text());
        same("what the program wrote", c.await_file("started")?.as_str(), "started\n")?;
        c.delete_force()?.ok()?;
    }
    Ok(())
}
