//! `spec`: a `config.json` to start from. Not in the spec; equal in meaning to what runc writes.

use super::create::{BUNDLE, bundle};
use crate::cli::{Flag, Parsed, Verb};
use crate::failure::Failure;
use crate::output;
use libruntime::Config;
use serde_json::{Value, json};
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
};

const TEMPLATE: &[u8] = include_bytes!("spec.json");

pub fn run(args: &Parsed) -> Result<u8, Failure> {
    let path = bundle(args).join("config.json");
    let text = text(args.is_set("rootless"))?;
    let shown = path.display();
    match OpenOptions::new().write(true).create_new(true).open(&path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(Failure::new(format!("{shown} already exists; remove it first")))
        }
        opened => opened
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map(|()| 0)
            .map_err(|error| Failure::os(format_args!("write {shown}"), error)),
    }
}

fn text(rootless: bool) -> Result<String, Failure> {
    let read = |error| Failure::new(format!("encode JSON: {error}"));
    let mut template: Value = serde_json::from_slice(TEMPLATE).map_err(read)?;
    if rootless {
        make_rootless(&mut template);
    }
    // Through its type, whose properties have an order that people like to read.
    let config = Config::parse(template.to_string().as_bytes())?;
    Ok(output::to_json(&config.spec, "\t")? + "\n")
}

/// What a user may not do by themselves, or cannot without more than one id, is left out.
fn make_rootless(spec: &mut Value) {
    let ids = [nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()];
    for (mapping, id) in ["uidMappings", "gidMappings"].into_iter().zip(ids) {
        spec["linux"][mapping] = json!([{ "containerID": 0, "hostID": id, "size": 1 }]);
    }
    if let Some(linux) = spec["linux"].as_object_mut() {
        linux.remove("resources");
    }
    if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({ "type": "user" }));
    }
    for mount in spec["mounts"].as_array_mut().into_iter().flatten() {
        if let Some(options) = mount["options"].as_array_mut() {
            // The group tty is not mapped.
            options.retain(|option| option != "gid=5");
        }
        if mount["destination"] == "/sys" {
            // A new sysfs needs a network namespace of one's own.
            *mount = json!({ "destination": "/sys", "type": "none", "source": "/sys",
                "options": ["rbind", "nosuid", "noexec", "nodev", "ro"] });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_read_back_as_it_was_written() {
        let written: Value = serde_json::from_str(&text(false).ok().unwrap()).unwrap();
        assert_eq!(written, serde_json::from_slice::<Value>(TEMPLATE).unwrap());
        let rootless = text(true).ok().unwrap();
        assert!(!rootless.contains("gid=5") && rootless.contains("\"user\""));
    }
}
