//! Programs that a test starts: this test program again, with a role. They are tests that are
//! ignored, so that nobody runs them by chance.

use super::bundle::{Bundle, null, quiet};
use libruntime::{NewContainer, Runtime};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// This program in the role `name`, for container `id` of a bundle.
pub fn command(name: &str, bundle: &Bundle, id: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("roles::{name}"), "--ignored", "--nocapture", "--test-threads=1"]);
    command.env("ROLE_BUNDLE", &bundle.directory).env("ROLE_ID", id);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn builder(store: &Path, id: &str, bundle: &Path) -> NewContainer {
    quiet(Runtime::new(store).container(id)).bundle(bundle)
}

fn given(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The bundle and the id, unless somebody runs ignored tests.
fn role() -> Option<(PathBuf, PathBuf, String)> {
    let bundle = PathBuf::from(given("ROLE_BUNDLE")?);
    Some((bundle.clone(), bundle.join("store"), given("ROLE_ID")?))
}

#[test]
#[ignore = "a role, started by another test"]
fn start() {
    let Some((_, store, id)) = role() else { return };
    Runtime::new(&store).load(&id).unwrap().start().unwrap();
}

#[test]
#[ignore = "a role, started by another test"]
fn create_one() {
    let Some((bundle, store, id)) = role() else { return };
    builder(&store, &id, &bundle).create().unwrap();
}

#[test]
#[ignore = "a role, started by another test"]
fn create_and_start() {
    let Some((bundle, store, id)) = role() else { return };
    let container = builder(&store, &id, &bundle).create().unwrap();
    container.start().unwrap();
    container.wait().unwrap();
}

/// With descriptors 3 and 4 of its own, of which the container keeps the first.
#[test]
#[ignore = "a role, started by another test"]
fn preserve() {
    let Some((bundle, store, id)) = role() else { return };
    let source = null();
    for number in [3, 4] {
        // SAFETY: nothing of this program uses either number: `source` is not read again.
        assert_eq!(unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&source), number) }, number);
    }
    let builder = builder(&store, &id, &bundle).inherit_fds(1);
    let output = std::fs::File::create(bundle.join("output")).unwrap();
    let container = builder.stdout(output.into()).create().unwrap();
    container.start().unwrap();
    container.wait().unwrap();
    // The descriptors of the test program are not closed twice.
    std::process::exit(0);
}

#[test]
#[ignore = "a role, started by another test"]
fn crowd() {
    let Some((bundle, store, id)) = role() else { return };
    let count = given("ROLE_COUNT").and_then(|count| count.parse().ok()).unwrap_or(50);
    super::caller::work_in_a_crowd(&bundle, &store, &id, count);
}

/// With a limit under which a container of this bundle could not be planned.
#[test]
#[ignore = "a role, started by another test"]
fn start_with_few_descriptors() {
    let Some((_, store, id)) = role() else { return };
    let resource = nix::sys::resource::Resource::RLIMIT_NOFILE;
    nix::sys::resource::setrlimit(resource, 512, 512).unwrap();
    Runtime::new(&store).load(&id).unwrap().start().unwrap();
}

#[test]
#[ignore = "a role, started by another test"]
fn ignores_sigchld() {
    let Some((bundle, store, id)) = role() else { return };
    // SAFETY: ignoring runs no code of ours.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    super::waits::live(&store, &bundle, &id);
}

/// As a program does that is init of a container of its own.
#[test]
#[ignore = "a role, started by another test"]
fn reaps_all() {
    let Some((bundle, store, id)) = role() else { return };
    std::thread::spawn(|| {
        loop {
            if nix::sys::wait::waitpid(None, None).is_err() {
                std::thread::sleep(std::time::Duration::from_micros(100));
            }
        }
    });
    super::waits::live(&store, &bundle, &id);
}

/// Ends what a killed program has left: processes of other mount namespaces with this bundle's root.
pub fn kill_left_over(bundle: &Bundle) {
    let name = bundle.directory.file_name().unwrap().to_string_lossy().into_owned();
    let own = std::fs::read_link("/proc/self/ns/mnt").unwrap();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok) {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        let rooted =
            mounts.lines().any(|line| line.split(' ').nth(3).is_some_and(|path| path.contains(&name)));
        let elsewhere = std::fs::read_link(format!("/proc/{pid}/ns/mnt")).is_ok_and(|mounts| mounts != own);
        if rooted && elsewhere {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}
