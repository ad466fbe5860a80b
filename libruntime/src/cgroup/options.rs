//! The options of the host's cgroup2 filesystem, such as nsdelegate. A mount of it that is made in the host's cgroup
//! namespace sets them for all, and CRIU makes such mounts without any.

use super::layout::Line;
use crate::sys;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStringExt;

/// Puts the options back when it is dropped, if they have changed.
pub(crate) struct KeptOptions(Option<Found>);

#[derive(PartialEq)]
struct Found {
    point: CString,
    options: Vec<CString>,
}

impl KeptOptions {
    pub fn look() -> Self {
        Self(find(&mountinfo()).filter(|found| !found.options.is_empty()))
    }
}

impl Drop for KeptOptions {
    fn drop(&mut self) {
        if let Some(before) = &self.0
            && find(&mountinfo())
                .is_some_and(|now| now.point == before.point && now.options != before.options)
        {
            // The container's work is done, whether this works or not.
            let _ = sys::reconfigure(&before.point, &before.options);
        }
    }
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
