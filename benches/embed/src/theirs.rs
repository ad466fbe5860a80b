use crate::Done;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::sys::wait::{WaitStatus, waitpid};

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
