//! Which mounts the stage keeps open, for what is done later to paths in them. The root can be shared with a running
//! container, which could rename a mount point: then `/proc` would be another directory, and the new procfs, under its
//! new name, would stay without masks.

use super::{Plan, Text};
use crate::step::{Kept, Place, ROOT, Step};
use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

/// The mounts in the order in which they are attached.
#[derive(Default)]
pub(super) struct KeptMounts {
    attached: Vec<Attached>,
    /// Which of them are at a path, ascending. There can be ten thousand, and more paths to look for.
    by_target: HashMap<PathBuf, Vec<usize>>,
}

struct Attached {
    target: PathBuf,
    /// Whether the stage has a descriptor of it.
    opened: bool,
    /// Its number, once it is kept.
    kept: Option<Kept>,
}

impl KeptMounts {
    /// Pushes the steps that attach mounts, and keeps the mounts that contain `paths`.
    pub fn attach(&mut self, plan: &mut Plan, steps: Vec<(String, Step<Text>)>, paths: &[&Path]) {
        self.attached = steps.iter().filter_map(|(_, step)| Attached::by(step)).collect();
        for (at, mount) in self.attached.iter().enumerate() {
            self.by_target.entry(mount.target.clone()).or_default().push(at);
        }
        let mut wanted: HashSet<usize> = paths.iter().filter_map(|path| self.holder(path)).collect();
        let mut count = 0;
        for (_, step) in &steps {
            match step {
                Step::SetAttributes { place, .. } => {
                    wanted.extend(self.holder_of(count, &place.path.to_path()))
                }
                step => count += usize::from(Attached::by(step).is_some()),
            }
        }
        let mut at = 0;
        for (origin, step) in steps {
            let attaches = Attached::by(&step).is_some();
            let step = match step {
                Step::SetAttributes { place, attrs } => {
                    Step::SetAttributes { place: self.place_in(at, &place.path.to_path()), attrs }
                }
                step => step,
            };
            plan.push(origin.clone(), step);
            if attaches && wanted.contains(&at) {
                let mount = plan.new_kept();
                self.attached[at].kept = Some(mount);
                plan.push(origin, Step::KeepMount { mount });
            }
            at += usize::from(attaches);
        }
    }

    /// The place of a path once everything is attached.
    pub fn place(&self, path: &Path) -> Place<Text> {
        self.place_in(self.attached.len(), path)
    }

    fn holder(&self, path: &Path) -> Option<usize> {
        self.holder_of(self.attached.len(), path)
    }

    /// The last of the first `count` mounts that contains the path. None for a path with `..`, which the kernel
    /// resolves.
    fn holder_of(&self, count: usize, path: &Path) -> Option<usize> {
        let is_plain = !path.components().any(|part| part == Component::ParentDir);
        let last_at = |above: &Path| {
            let all = self.by_target.get(above)?;
            all[..all.partition_point(|at| *at < count)].last().copied()
        };
        let found = path.ancestors().filter_map(last_at).max();
        found.filter(|at| is_plain && self.attached[*at].opened)
    }

    fn place_in(&self, count: usize, path: &Path) -> Place<Text> {
        let kept = self.holder_of(count, path).and_then(|at| {
            let Attached { target, kept, .. } = &self.attached[at];
            let length = target.components().collect::<PathBuf>().as_os_str().len();
            kept.map(|mount| (mount, if length == 1 { 0 } else { length }))
        });
        match kept {
            Some((mount, length)) => {
                let path: PathBuf = path.components().collect();
                Place { mount, skip: length as u16, path: Text::path(&path) }
            }
            None => Place { mount: ROOT, skip: 0, path: Text::path(path) },
        }
    }
}

impl Attached {
    /// What a step attaches, if it does.
    fn by(step: &Step<Text>) -> Option<Self> {
        let (target, opened) = match step {
            Step::Mount { target, .. } | Step::MountProcfs { target, .. } => (target, true),
            // A copied link is no mount.
            Step::MoveMount { target, copy_link, .. } => (target, !copy_link),
            Step::MountByText { target, .. } => (target, false),
            _ => return None,
        };
        Some(Self { target: target.to_path(), opened, kept: None })
    }
}
