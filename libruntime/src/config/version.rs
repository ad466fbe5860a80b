//! Versions of the runtime specification.

/// Whether the rules of a version before 1.`minor` are those of a configuration that declares `version`.
pub(crate) fn is_before(version: &str, minor: u32) -> bool {
    let mut numbers = version.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) < (Some(1), Some(minor))
}
