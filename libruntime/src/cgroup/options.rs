//! The options of the host's cgroup2 filesystem, such as nsdelegate. A mount of it that is made in the host's cgroup
//! namespace sets them for all, and CRIU makes such mounts without any.

use super::layout::Line;
use crate::sys;
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

/// Puts the options back when it is dropped, if they have changed.
///
/// Who looks while another CRIU runs, or after a caller that was killed, finds none. So the options are recorded at the
/// filesystem's root for as long as somebody needs them, which a shared lock there says.
pub(crate) struct KeptOptions {
    before: Found,
    root: Option<File>,
}

#[derive(PartialEq)]
struct Found {
    point: CString,
    options: Vec<CString>,
}

const RECORD: &CStr = c"trusted.onggi.options";

impl KeptOptions {
    /// `None` where there are none to keep.
    pub fn look() -> Option<Self> {
        let mut before = find(&mountinfo())?;
        let root = File::open(std::ffi::OsStr::from_bytes(before.point.as_bytes())).ok();
        if let Some(root) = &root {
            share(root);
            if before.options.is_empty() {
                before.options = recorded(root);
            } else {
                // Best effort: it needs Linux 5.7 and CAP_SYS_ADMIN, without which CRIU changes nothing either.
                let _ = sys::set_attribute(root, RECORD, &list(&before.options));
            }
        }
        (!before.options.is_empty()).then_some(Self { before, root })
    }
}

impl Drop for KeptOptions {
    fn drop(&mut self) {
        if find(&mountinfo()).is_some_and(|now| now.point == self.before.point && now != self.before) {
            // The container's work is done, whether this works or not.
            let _ = sys::reconfigure(&self.before.point, &self.before.options);
        }
        if let Some(root) = &self.root {
            let _ = root.unlock();
            if root.try_lock().is_ok() {
                let _ = sys::remove_attribute(root, RECORD);
            }
        }
    }
}

/// Takes the shared lock, after whoever removes the record at this moment. Who holds it longer is no user of the record,
/// and is not waited for.
fn share(root: &File) {
    for _ in 0..50 {
        if root.try_lock_shared().is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn recorded(root: &File) -> Vec<CString> {
    let text = sys::attribute(root, RECORD).unwrap_or_default();
    text.split(|&byte| byte == b',')
        .filter_map(|option| CString::new(option).ok())
        .filter(|option| !option.is_empty())
        .collect()
}

fn list(options: &[CString]) -> Vec<u8> {
    options.iter().map(|option| option.as_bytes()).collect::<Vec<_>>().join(&b',')
}

fn mountinfo() -> Vec<u8> {
    fs::read("/proc/self/mountinfo").unwrap_or_default()
}

/// The first mount of it.
fn find(mountinfo: &[u8]) -> Option<Found> {
    let mut lines = mountinfo.split(|&byte| byte == b'\n').filter_map(Line::of_cgroups);
    let Line { point, options, .. } = lines.find(|line| line.kind == b"cgroup2")?;
    let options = options.into_iter().filter(|option| !matches!(*option, "rw" | "ro"));
    let options = options.map(CString::new).collect::<Result<_, _>>().ok()?;
    Some(Found { point: CString::new(point.into_os_string().into_vec()).ok()?, options })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(mountinfo: &str) -> Option<(String, Vec<String>)> {
        let text = |text: &CString| text.to_str().unwrap().to_owned();
        find(mountinfo.as_bytes()).map(|found| (text(&found.point), found.options.iter().map(text).collect()))
    }

    #[test]
    fn options_of_the_first_cgroup2_mount() {
        let lines = "30 29 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                     34 29 0:28 / /sys/fs/cgroup rw,nosuid shared:8 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n\
                     35 29 0:28 / /mnt rw - cgroup2 none rw\n";
        let wanted = ["nsdelegate", "memory_recursiveprot"].map(String::from).to_vec();
        assert_eq!(found(lines), Some(("/sys/fs/cgroup".into(), wanted)));
        let blank = "34 29 0:28 / /a\\040b rw - cgroup2 cgroup2 rw,x\n";
        assert_eq!(found(blank), Some(("/a b".into(), vec!["x".to_owned()])));
        assert_eq!(found("34 29 0:28 / /a rw - cgroup2 cgroup2 rw\n"), Some(("/a".into(), Vec::new())));
        assert_eq!(found(""), None);
    }
}
