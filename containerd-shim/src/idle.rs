//! The memory of an idle shim. Its program text is given back: the kernel reads it again when it is needed, mostly from
//! pages that other shims have in use. Must not touch what differs from its file.

use crate::sys;
use std::ops::Range;

/// Unmaps the pages of files that this process has not changed.
pub fn give_back_text() {
    let text = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    for range in unchanged(&text) {
        // Else the pages stay.
        let _ = sys::give_back(range);
    }
}

/// The private mappings of files that cannot be written to and of which no page is a copy: those with relocations are
/// read-only too, and are not in the file as they are in memory.
fn unchanged(smaps: &str) -> Vec<Range<usize>> {
    let (mut found, mut candidate) = (Vec::new(), None);
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        match (words.next(), words.next()) {
            (Some("Anonymous:" | "Swap:"), Some(size)) if size != "0" => candidate = None,
            // The last line of each.
            (Some("VmFlags:"), _) => found.extend(candidate.take()),
            (Some(range), Some(access)) if !range.ends_with(':') => {
                let inode = words.nth(2).unwrap_or("0");
                let is_text =
                    access.as_bytes().get(1) == Some(&b'-') && access.ends_with('p') && inode != "0";
                candidate = range_of(range).filter(|_| is_text);
            }
            _ => {}
        }
    }
    found
}

fn range_of(text: &str) -> Option<Range<usize>> {
    let (from, to) = text.split_once('-')?;
    Some(usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(range: &str, access: &str, inode: u32, anonymous: u32, swap: u32) -> String {
        format!(
            "{range} {access} 00001000 08:02 {inode} /shim\nSize: 8 kB\nAnonymous: {anonymous} kB\nSwap: {swap} kB\nVmFlags: rd mr\n"
        )
    }

    #[test]
    fn what_differs_from_its_file_stays() {
        let text = [
            mapping("400000-402000", "r-xp", 7, 0, 0),
            mapping("402000-404000", "r--p", 7, 0, 0),
            mapping("404000-406000", "rw-p", 7, 0, 0),
            mapping("406000-408000", "r--p", 7, 4, 0),
            mapping("408000-40a000", "r--p", 7, 0, 4),
            mapping("40a000-40c000", "r--s", 7, 0, 0),
            mapping("40c000-40e000", "r-xp", 0, 0, 0),
            mapping("40e000-410000", "--xp", 7, 0, 0),
        ];
        assert_eq!(unchanged(&text.concat()), [0x400000..0x402000, 0x402000..0x404000, 0x40e000..0x410000]);
    }
}
