//! What a new filesystem is made with, as fsconfig(2) and mount(2) take it.

use super::Text;
use super::mount_options::Options;
use oci_spec::runtime::Mount;
use std::path::PathBuf;

/// The longest value that fsconfig(2) accepts, in bytes. The layers of an overlay can be longer.
pub const LONGEST_VALUE: usize = 255;

pub fn source(mount: &Mount) -> PathBuf {
    let source = mount.source().clone().filter(|source| !source.as_os_str().is_empty());
    source.unwrap_or_else(|| PathBuf::from("none"))
}

pub fn options(mount: &Mount, options: &Options, label: Option<&str>) -> Text {
    let mut data = Text::default();
    data.push("source");
    data.push(source(mount).as_os_str().as_encoded_bytes());
    for (key, value) in &options.data {
        data.push(key);
        data.push(value);
    }
    if let Some(label) = label {
        data.push("context");
        data.push(label);
    }
    data
}

/// The options as one text for mount(2), where a label is quoted because of its commas.
pub fn as_text(options: &Options, label: Option<&str>) -> Text {
    let option = |(key, value): &(String, String)| match value.as_str() {
        "" => key.clone(),
        value => format!("{key}={value}"),
    };
    let label = label.map(|label| format!("context=\"{label}\""));
    Text::of(options.data.iter().map(option).chain(label).collect::<Vec<_>>().join(","))
}
