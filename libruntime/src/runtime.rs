//! The first type that a user of the library meets: a store of containers.

use crate::bundle::{self, BundleReport};
use crate::container::Container;
use crate::error::{Error, ErrorKind, Result};
use crate::new_container::NewContainer;
use crate::plan::request::CgroupDriver;
use crate::settings::Settings;
use crate::sys;
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A store of containers, and what all of them have in common. Clones share the store and what is known of
/// the host: the mounted hierarchies of cgroups are looked up once.
///
/// ```no_run
/// let runtime = libruntime::Runtime::new("/run/example");
/// let output = runtime.container("hello").bundle("/srv/bundle").output()?;
/// println!("{}: {}", output.status, String::from_utf8_lossy(&output.stdout));
/// # Ok::<(), libruntime::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Runtime(Arc<Settings>);

impl Runtime {
    /// The containers below `root`, a directory such as `/run/example` that is made (mode 0700) with the first
    /// container. It belongs on a filesystem that a reboot clears, because no container outlives a reboot.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self(Arc::new(Settings::new(root.into())))
    }

    /// Chooses who creates cgroups; the default is [`CgroupDriver::Cgroupfs`].
    pub fn cgroup_driver(self, driver: CgroupDriver) -> Self {
        self.with(|settings| settings.cgroup_driver = driver)
    }

    /// Lets annotations `org.onggi.network.*` request networks too. Engines copy annotations from images and pods,
    /// whose authors could then create bridges, publish ports and set routes on the host. By default, such annotations
    /// cause a warning and nothing else.
    pub fn network_annotations(self, allowed: bool) -> Self {
        self.with(|settings| settings.network_annotations = allowed)
    }

    /// Lets crun's annotations `run.oci.hooks.stdout` and `run.oci.hooks.stderr` name files to which hooks append their
    /// output. An author of annotations could then append to any file of the host. By default, such annotations cause a
    /// warning and nothing else. [`Container::start`] and the deletion run hooks as well, and want the same permission.
    pub fn hook_output_annotations(self, allowed: bool) -> Self {
        self.with(|settings| settings.hook_output_annotations = allowed)
    }

    fn with(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::new(self.0.store.clone());
        settings.cgroup_driver = self.0.cgroup_driver;
        settings.network_annotations = self.0.network_annotations;
        settings.hook_output_annotations = self.0.hook_output_annotations;
        change(&mut settings);
        Self(Arc::new(settings))
    }

    /// The directory that holds the containers' state; absolute.
    pub fn root(&self) -> &Path {
        &self.0.store
    }

    pub(crate) fn driver(&self) -> CgroupDriver {
        self.0.cgroup_driver
    }

    /// A new container, to be configured and created. `id` is unique in the store: 1 to 1024 letters, digits,
    /// `_`, `+`, `-` and `.`.
    pub fn container(&self, id: impl Into<String>) -> NewContainer {
        NewContainer::new(self.0.clone(), id.into())
    }

    /// Loads the container `id`, whichever process has created it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) when there is none. Where its state cannot be read,
    /// [`Runtime::load_damaged`] loads it for deletion.
    pub fn load(&self, id: &str) -> Result<Container> {
        Container::load(&self.0, id)
    }

    /// Loads the container `id` for [`Container::delete_force`]. Where its state cannot be read, the first state is
    /// used, which creation writes before it makes anything else, and [`Container::warnings`] say so.
    ///
    /// # Errors
    /// The directory with this name does not belong to a container.
    pub fn load_damaged(&self, id: &str) -> Result<Container> {
        Container::load_damaged(&self.0, id)
    }

    /// Checks a bundle: its configuration against the specification, this kernel and this user, and the files of the
    /// host that it names. All problems are reported, not only the first, each with its place in the text. Nothing is
    /// run or changed.
    ///
    /// # Errors
    /// There is no `config.json` that can be read, or it is larger than 16 MiB. What is wrong in it is no error, but a
    /// [`Diagnostic`](crate::Diagnostic) of the report.
    pub fn check_bundle(&self, bundle: impl AsRef<Path>) -> Result<BundleReport> {
        bundle::check(&self.0, bundle.as_ref())
    }

    /// The containers of the store, sorted by id; a store that does not exist has none. Each is loaded when it is
    /// asked for; one that is deleted meanwhile is left out. An item is the id and the container, or why it
    /// cannot be loaded.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn containers(&self) -> Result<impl Iterator<Item = (String, Result<Container>)> + use<>> {
        let entries = match std::fs::read_dir(&self.0.store) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            other => {
                Some(other.map_err(|error| Error::io(format!("open {}", self.0.store.display()), error))?)
            }
        };
        let names = entries.into_iter().flatten();
        let mut names: Vec<String> =
            names.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.retain(|name| crate::config::check_id(name).is_ok() && !name.starts_with('.'));
        names.sort();
        let settings = self.0.clone();
        Ok(names.into_iter().filter_map(move |id| match Container::load(&settings, &id) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            // It is not a container's directory.
            Err(_) if !Container::has_directory(&settings, &id) => None,
            loaded => Some((id, loaded)),
        }))
    }

    /// Those whose id, or a part of it, matches an extended regular expression (regex(7)); those that cannot be
    /// loaded are left out.
    ///
    /// # Errors
    /// The pattern is not a regular expression, or the store cannot be read.
    pub fn matching(&self, pattern: &str) -> Result<Vec<Container>> {
        let wrong = |why: String| {
            Error::new(ErrorKind::InvalidConfig, format!("{pattern:?} is not a regular expression: {why}"))
        };
        let text = CString::new(pattern).map_err(|_| wrong("it has a NUL byte".into()))?;
        let pattern = sys::Pattern::new(&text).map_err(wrong)?;
        let is_meant = |one: &Container| CString::new(one.id()).is_ok_and(|id| pattern.matches(&id));
        Ok(self.containers()?.filter_map(|(_, loaded)| loaded.ok().filter(is_meant)).collect())
    }
}
