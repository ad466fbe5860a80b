//! Adds mounts to a container that exists, and removes them. They are not recorded, and end with the container's mount
//! namespace.

use crate::config::Config;
use crate::container::Container;
use crate::error::{Diagnostic, Error, ErrorKind, Result};
use crate::host::Host;
use crate::launch::{Given, Launch};
use crate::parent::{Event, Stage};
use crate::plan::Plan;
use crate::status::Status;
use crate::step::SyncPoint;
use crate::wait::{self, HELD_UP, Wait};
use crate::{plan, trace};
use oci_spec::runtime::{LinuxNamespaceType, Mount};
use serde_json::{Value, json};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;

/// A list of mounts (config.md, "Mounts"), as `mounts add` gets it.
pub fn parse_mounts(bytes: &[u8]) -> Result<(Vec<Mount>, Vec<Diagnostic>)> {
    // As a part of a configuration, so that the same rules hold.
    let whole = json!({ "ociVersion": "1.2.0", "root": { "path": "/" }, "mounts": list(bytes)? });
    let config = Config::parse(whole.to_string().as_bytes())?;
    Ok((config.spec.mounts().clone().unwrap_or_default(), config.warnings))
}

/// The destinations of a list of mounts, as `mounts remove` gets it; nothing else is needed of them.
pub fn parse_destinations(bytes: &[u8]) -> Result<Vec<PathBuf>> {
    let wrong = |at: usize| {
        let text = "missing; it is the path of a mount in the container";
        Error::invalid(vec![Diagnostic::new(format!("mounts[{at}].destination"), text)])
    };
    let list = list(bytes)?;
    let texts = list.iter().map(|mount| mount["destination"].as_str());
    let usable = |text: &&str| !text.is_empty() && !text.contains('\0');
    texts
        .enumerate()
        .map(|(at, text)| text.filter(usable).map(PathBuf::from).ok_or_else(|| wrong(at)))
        .collect()
}

fn list(bytes: &[u8]) -> Result<Vec<Value>> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Array(list)) => Ok(list),
        Ok(_) => Err(Error::new(ErrorKind::InvalidConfig, "mounts must be an array")),
        Err(error) => Err(Error::new(ErrorKind::InvalidConfig, format!("mounts: {error}"))),
    }
}

impl Container {
    /// Adds mounts to a container that is created, running or paused: bind mounts of files of the host, and new
    /// filesystems. Its processes see them at once. They are not in its configuration, and not in a checkpoint.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] without the host's root, and without a mount namespace of the container; a
    /// destination that is reached through a symbolic link. The mounts before the one that failed stay.
    pub fn add_mounts(&self, mounts: &[Mount]) -> Result<Vec<Diagnostic>> {
        wait::limited(&self.limits, || {
            let _turn = self.directory.lock()?;
            self.check_mountable()?;
            let spec = self.spec()?;
            let host = Host::probe(spec, &self.layout()?, &self.state.cgroup)?;
            let plan = plan::added::add(mounts, spec, &host, &self.state.bundle, self.pid().unwrap_or(0))?;
            self.change_mounts(&plan)?;
            Ok(plan.warnings.clone())
        })
    }

    /// Unmounts the topmost mount at each of these paths of the container.
    ///
    /// # Errors
    /// As those of [`Container::add_mounts`]; nothing is mounted there.
    pub fn remove_mounts(&self, destinations: &[PathBuf]) -> Result<()> {
        wait::limited(&self.limits, || {
            let _turn = self.directory.lock()?;
            self.check_mountable()?;
            self.change_mounts(&plan::added::remove(destinations)?)
        })
    }

    fn check_mountable(&self) -> Result<()> {
        match self.status() {
            Status::Created | Status::Running | Status::Paused => {}
            status => return Err(self.wrong_state("change the mounts of", status)),
        }
        if !nix::unistd::geteuid().is_root() {
            return Err(Error::unsupported("a user cannot change the mounts of a container that runs"));
        }
        match self.has_own(LinuxNamespaceType::Mount)? {
            true => Ok(()),
            false => Err(Error::unsupported("the container has no mount namespace of its own")),
        }
    }

    fn change_mounts(&self, plan: &Plan) -> Result<()> {
        let null = File::options().read(true).write(true).open("/dev/null");
        let null = null.map_err(|error| Error::io("open /dev/null", error))?;
        let launch = Launch {
            stdio: [null.as_fd(); 3],
            passed: &[],
            cgroup: None,
            given: Given { pidfd: Some(self.running_init()?), ..Given::default() },
        };
        trace::plain("change the container's mounts", || {
            let mut stage = Stage::launch(plan, &launch)?;
            let wait = Wait::at_most(HELD_UP);
            loop {
                match stage.next(&wait)? {
                    Event::At(SyncPoint::Ready) => break,
                    Event::At(_) => stage.answer()?,
                    Event::End => return Err(stage.died()),
                    Event::InCgroup | Event::Cloned | Event::Listener(_) => {}
                }
            }
            stage.answer()?;
            // Reaps the stage, which has done everything by now.
            let _ = stage.died();
            Ok(())
        })
    }
}
