//! `spec`: a `config.json` to start from. Not in the specification; equal in meaning to what runc writes.

use super::create::{BUNDLE, bundle};
use crate::cli::{Flag, Parsed, Verb};
use crate::failure::Failure;
use crate::global::Global;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};

pub const VERB: Verb = Verb {
    name: "spec",
    about: "write a config.json to start from",
    arguments: "",
    count: (0, 0),
    trailing: false,
    text: "It expects a root filesystem in rootfs/ and runs sh in it, on a terminal.",
    flags: &[BUNDLE, Flag::switch("rootless", "for a user without privileges")],
    run,
};

const TEMPLATE: &str = include_str!("spec.json");

/// Parts that do not work without privileges or with only one id, and their replacements. As text, so that the
/// properties keep their order.
const ROOTLESS: &[(&str, &str)] = &[
    // The group tty is not mapped.
    (",\n\t\t\t\t\"gid=5\"", ""),
    // A new sysfs needs a new network namespace.
    (
        "\"type\": \"sysfs\",\n\t\t\t\"source\": \"sysfs\",\n\t\t\t\"options\": [",
        "\"type\": \"none\",\n\t\t\t\"source\": \"/sys\",\n\t\t\t\"options\": [\n\t\t\t\t\"rbind\",",
    ),
    ("\"type\": \"network\"", "\"type\": \"user\""),
    (
        "\"resources\": {\n\t\t\t\"devices\": [\n\t\t\t\t{\n\t\t\t\t\t\"allow\": false,\n\
         \t\t\t\t\t\"access\": \"rwm\"\n\t\t\t\t}\n\t\t\t]\n\t\t},",
        "\"uidMappings\": [\n\t\t\t{\n\t\t\t\t\"containerID\": 0,\n\
         \t\t\t\t\"hostID\": UID,\n\t\t\t\t\"size\": 1\n\t\t\t}\n\t\t],\n\
         \t\t\"gidMappings\": [\n\t\t\t{\n\t\t\t\t\"containerID\": 0,\n\
         \t\t\t\t\"hostID\": GID,\n\t\t\t\t\"size\": 1\n\t\t\t}\n\t\t],",
    ),
];

pub fn run(_: &Global, args: &Parsed) -> Result<u8, Failure> {
    let path = bundle(args).join("config.json");
    let text = text(args.is_set("rootless"));
    let shown = path.display();
    if let Err(error) = std::fs::metadata(bundle(args)) {
        return Err(Failure::os(format_args!("chdir {}", bundle(args).display()), error));
    }
    match OpenOptions::new().write(true).create_new(true).open(&path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(Failure::new(format!("File config.json exists. Remove it first: {shown}")))
        }
        opened => opened
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map(|()| 0)
            .map_err(|error| Failure::os(format_args!("write {shown}"), error)),
    }
}

fn text(rootless: bool) -> String {
    if !rootless {
        return TEMPLATE.to_string();
    }
    let changed =
        ROOTLESS.iter().fold(TEMPLATE.to_string(), |text, (usual, instead)| text.replace(usual, instead));
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    changed.replace("UID", &uid.to_string()).replace("GID", &gid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use libruntime::Config;

    #[test]
    fn both_are_configurations_without_a_warning() {
        for rootless in [false, true] {
            let config = Config::parse(text(rootless).as_bytes()).unwrap();
            assert_eq!(config.warnings, [], "rootless: {rootless}");
        }
    }

    #[test]
    fn what_is_replaced_is_there_once() {
        for (usual, _) in ROOTLESS {
            assert_eq!(TEMPLATE.matches(usual).count(), 1, "{usual}");
        }
    }
}
