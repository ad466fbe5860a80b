//! Checks of `hooks`. Whether a program exists is found out when it is run: paths of engines may be
//! magic links, and those of two hook kinds are inside the container.

use super::found::{Found, each};
use super::process::env;
use oci_spec::runtime::{Hook, Hooks};

#[allow(deprecated)] // prestart is deprecated, and in use
pub(crate) fn check(hooks: &Hooks, found: &mut Found) {
    for (list, kind) in [
        (hooks.prestart(), "prestart"),
        (hooks.create_runtime(), "createRuntime"),
        (hooks.create_container(), "createContainer"),
        (hooks.start_container(), "startContainer"),
        (hooks.poststart(), "poststart"),
        (hooks.poststop(), "poststop"),
    ] {
        for (i, hook) in each(list).iter().enumerate() {
            check_one(hook, &format!("hooks.{kind}[{i}]"), found);
        }
    }
}

fn check_one(hook: &Hook, at: &str, found: &mut Found) {
    found.absolute(hook.path(), format_args!("{at}.path"));
    for (i, arg) in each(hook.args()).iter().enumerate() {
        found.text(arg, format_args!("{at}.args[{i}]"));
    }
    env(each(hook.env()), &format!("{at}.env"), found);
    if let Some(timeout) = hook.timeout().filter(|timeout| *timeout <= 0) {
        found.problem(format_args!("{at}.timeout"), format_args!("{timeout} is not more than 0 seconds"));
    }
}
