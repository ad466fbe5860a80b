use crate::Done;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::sys::wait::{WaitStatus, waitpid};
use std::path::{Component, Path};

/// Refuses a bundle with which it would end every process of the host: libcontainer takes an empty `linux.cgroupsPath`
/// for the root cgroup, and kills whatever is in the container's cgroup when it deletes or undoes a creation.
pub fn check(bundle: &str) -> Done {
    let spec = libruntime::Spec::load(Path::new(bundle).join("config.json"))?;
    let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_ref());
    match path.is_some_and(|path| !path.components().any(|part| matches!(part, Component::Normal(_)))) {
        true => {
            Err("linux.cgroupsPath names the root cgroup, in which libcontainer kills all: remove it".into())
        }
        false => Ok(()),
    }
}

pub fn cycle(bundle: &str, id: &str) -> Done {
    std::fs::create_dir_all("/run/embed-libcontainer")?;
    let builder =
        ContainerBuilder::new(id.into(), SyscallType::default()).with_root_path("/run/embed-libcontainer")?;
    let mut container = builder.as_init(bundle).with_systemd(false).with_detach(true).build()?;
    let done = run(&mut container);
    if done.is_err() {
        // Not to leave it behind; that this fails as well adds nothing.
        let _ = container.delete(true);
    }
    done
}

fn run(container: &mut libcontainer::container::Container) -> Done {
    let pid = container.pid().ok_or("no pid")?;
    container.start()?;
    match waitpid(nix::unistd::Pid::from_raw(pid.as_raw()), None)? {
        WaitStatus::Exited(_, 0) => {}
        other => return Err(format!("a wrong exit status: {other:?}").into()),
    }
    container.delete(true)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_bundle_in_the_root_cgroup_is_refused() {
        let bundle = std::env::temp_dir().join(format!("embed-{}", std::process::id()));
        std::fs::create_dir(&bundle).unwrap();
        let allowed = |linux: &str| {
            let config = format!(r#"{{"ociVersion": "1.2.0", "linux": {linux}}}"#);
            std::fs::write(bundle.join("config.json"), config).unwrap();
            super::check(bundle.to_str().unwrap()).is_ok()
        };
        let found = ["{}", r#"{"cgroupsPath": "/a"}"#, r#"{"cgroupsPath": ""}"#, r#"{"cgroupsPath": "/"}"#]
            .map(allowed);
        std::fs::remove_dir_all(&bundle).unwrap();
        assert_eq!(found, [true, true, false, false]);
    }
}
