//! crun(1): the mount option `idmap=uids=0-1-10#10-11-10;gids=0-100-10` (and `ridmap=`), by which Podman hands on
//! `--volume …:idmap=…`. It becomes the properties that the specification has for it: `uidMappings`, `gidMappings` and
//! the option without a value.

use super::found::{Found, each};
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, Mount, Spec};

pub(crate) fn normalize(spec: &mut Spec, found: &mut Found) {
    let linux = spec.linux().as_ref();
    let of = |maps: Option<&Option<Vec<LinuxIdMapping>>>| maps.map(each).unwrap_or_default().to_vec();
    let container =
        [of(linux.map(|linux| linux.uid_mappings())), of(linux.map(|linux| linux.gid_mappings()))];
    for (i, mount) in spec.mounts_mut().iter_mut().flatten().enumerate() {
        let is_it = |option: &String| option.starts_with("idmap=") || option.starts_with("ridmap=");
        if let Some(at) = each(mount.options()).iter().position(is_it) {
            let place = format!("mounts[{i}].options[{at}]");
            if let Err(problem) = one(mount, at, &container) {
                found.problem(place, problem);
            }
        }
    }
}

fn one(mount: &mut Mount, at: usize, container: &[Vec<LinuxIdMapping>; 2]) -> Result<(), String> {
    let option = each(mount.options()).get(at).cloned().unwrap_or_default();
    let (name, value) = option.split_once('=').unwrap_or_default();
    if !each(mount.uid_mappings()).is_empty() || !each(mount.gid_mappings()).is_empty() {
        return Err("has mappings, and so has the mount; one of both says which count".into());
    }
    let [mut uids, mut gids] = [Vec::new(), Vec::new()];
    for list in value.split(';').filter(|list| !list.is_empty()) {
        let (rows, text, of) = match list.split_once('=') {
            Some(("uids", text)) => (&mut uids, text, &container[0]),
            Some(("gids", text)) => (&mut gids, text, &container[1]),
            _ => return Err(format!("{list:?} is neither uids=… nor gids=…")),
        };
        for row in text.split('#') {
            rows.push(mapping(row, of)?);
        }
    }
    if uids.is_empty() || gids.is_empty() {
        return Err("needs uids=… and gids=…, separated by a semicolon".into());
    }
    mount.set_uid_mappings(Some(uids));
    mount.set_gid_mappings(Some(gids));
    if let Some(option) = mount.options_mut().as_mut().and_then(|options| options.get_mut(at)) {
        *option = name.into();
    }
    Ok(())
}

/// `FIRST-SECOND-LENGTH`; with `@` in front, the second is an id of the container, and the host's is looked up.
fn mapping(row: &str, container: &[LinuxIdMapping]) -> Result<LinuxIdMapping, String> {
    const FORM: &str = "a mapping is FIRST-SECOND-LENGTH in numbers, such as 0-1000-10";
    let (relative, numbers) = row.strip_prefix('@').map_or((false, row), |row| (true, row));
    let numbers: Option<Vec<u32>> = numbers.split('-').map(|number| number.parse().ok()).collect();
    let Some([first, second, size]) = numbers.as_deref() else {
        return Err(format!("{row:?}: {FORM}"));
    };
    let inside = |known: &&LinuxIdMapping| {
        second.checked_sub(known.container_id()).is_some_and(|distance| distance < known.size())
    };
    let second = match (relative, container.iter().find(inside)) {
        (false, _) => Some(*second),
        (true, Some(known)) => (second - known.container_id()).checked_add(known.host_id()),
        (true, None) => return Err(format!("{row:?}: the container has no id {second}")),
    };
    let built = LinuxIdMappingBuilder::default()
        .container_id(*first)
        .host_id(second.ok_or_else(|| format!("{row:?}: goes beyond the largest id"))?)
        .size(*size)
        .build();
    built.map_err(|error| format!("{row:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(option: &str) -> Result<(Vec<String>, Vec<String>), String> {
        let text = serde_json::json!({
            "ociVersion": "1.2.0",
            "mounts": [{"destination": "/a", "type": "bind", "source": "/b", "options": ["bind", option]}],
            "linux": {
                "namespaces": [{"type": "user"}],
                "uidMappings": [
                    {"containerID": 0, "hostID": 0, "size": 1}, {"containerID": 1, "hostID": 2, "size": 1000}
                ],
            },
        });
        let mut spec: Spec = serde_json::from_value(text).unwrap();
        let mut found = Found::default();
        normalize(&mut spec, &mut found);
        found.into_warnings().map_err(|error| error.to_string())?;
        let mount = &spec.mounts().as_ref().unwrap()[0];
        let shown = |maps: &Option<Vec<LinuxIdMapping>>| -> Vec<String> {
            let row =
                |row: &LinuxIdMapping| format!("{} {} {}", row.container_id(), row.host_id(), row.size());
            each(maps).iter().map(row).collect()
        };
        assert_eq!(each(mount.options())[1], option.split('=').next().unwrap());
        Ok((shown(mount.uid_mappings()), shown(mount.gid_mappings())))
    }

    #[test]
    fn the_examples_of_the_manual() {
        let (uids, gids) = rows("idmap=uids=0-1-10#10-11-10;gids=0-100-10").unwrap();
        assert_eq!((uids.join(","), gids.join(",")), ("0 1 10,10 11 10".into(), "0 100 10".into()));
        let (uids, _) = rows("ridmap=uids=@1-3-10;gids=0-0-1").unwrap();
        assert_eq!(uids, ["1 4 10"]);
    }

    #[test]
    fn what_is_no_mapping_is_an_error() {
        for (option, words) in [
            ("idmap=", "needs uids"),
            ("idmap=uids=0-1-10", "needs uids"),
            ("idmap=uids=0-1;gids=0-1-1", "FIRST-SECOND-LENGTH"),
            ("idmap=uids=0-1-x;gids=0-1-1", "FIRST-SECOND-LENGTH"),
            ("idmap=uids=@0-5000-1;gids=0-1-1", "has no id 5000"),
            ("idmap=frob=0-1-1", "neither"),
        ] {
            let error = rows(option).unwrap_err();
            assert!(error.contains(words) && error.contains("mounts[0].options[1]"), "{option}: {error}");
        }
    }

    #[test]
    fn an_option_without_a_value_stays() {
        assert_eq!(rows("idmap").unwrap(), (Vec::new(), Vec::new()));
    }
}
