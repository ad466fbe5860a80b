//! Which elements of lists were taken out of a configuration, so that the rest can be checked. Places of later findings
//! are translated to the indices of the text.

use std::collections::HashMap;

/// Original indices of elements that were taken out, by the place of their list: later ones have moved up.
#[derive(Default)]
pub(crate) struct Removed(HashMap<String, Vec<usize>>);

impl Removed {
    /// The element with the original index `index` of the list at `place` is not there any more.
    pub fn note(&mut self, place: &str, index: usize) {
        let removed = self.0.entry(place.to_owned()).or_default();
        removed.push(index);
        removed.sort_unstable();
    }

    pub fn original_index(&self, place: &str, index: usize) -> usize {
        let removed = self.0.get(place).map_or(&[][..], Vec::as_slice);
        removed.iter().fold(index, |i, gone| if *gone <= i { i + 1 } else { i })
    }

    /// A place with the indices of the text.
    pub fn original(&self, place: &str) -> String {
        let mut original = String::new();
        let mut rest = place;
        while let Some((before, from)) = rest.split_once('[') {
            original.push_str(before);
            let (index, after) = from.split_once(']').unwrap_or((from, ""));
            match index.parse() {
                Ok(index) => original = format!("{original}[{}]", self.original_index(&original, index)),
                Err(_) => original = format!("{original}[{index}]"),
            }
            rest = after;
        }
        original + rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_counts_what_was_taken_out_before_it() {
        let mut removed = Removed::default();
        removed.note("mounts", 0);
        removed.note("mounts", 2);
        removed.note("mounts[3].options", 1);
        assert_eq!(removed.original("mounts[0].source"), "mounts[1].source");
        assert_eq!(removed.original("mounts[1].options[1]"), "mounts[3].options[2]");
        assert_eq!(removed.original("linux.devices[0]"), "linux.devices[0]");
        assert_eq!(removed.original("annotations[a.b]"), "annotations[a.b]");
    }
}
