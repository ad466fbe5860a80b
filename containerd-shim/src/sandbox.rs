//! Which containers share a shim: those of a pod, by their annotations; and whose bundle it is. Pure.

const GROUPS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

/// The group of a container by its `config.json`, else its id.
pub fn group(config: &[u8], id: &str) -> String {
    let config: serde_json::Value = serde_json::from_slice(config).unwrap_or_default();
    let annotation = |name: &str| config.get("annotations")?.get(name)?.as_str().map(String::from);
    GROUPS
        .iter()
        .find_map(|name| annotation(name))
        .filter(|group| !group.is_empty())
        .unwrap_or_else(|| id.into())
}

/// Of a container, by the `config.json` of a bundle. That of a sandbox has none, or one without a process.
pub fn is_of_container(config: &[u8]) -> bool {
    let config: serde_json::Value = serde_json::from_slice(config).unwrap_or_default();
    config.get("process").is_some()
}

#[cfg(test)]
mod tests {
    use super::{group, is_of_container};

    #[test]
    fn a_container_has_a_process() {
        assert!(is_of_container(br#"{"process":{}}"#));
        assert!(!is_of_container(b"") && !is_of_container(br#"{"ociVersion":"1.0.2"}"#));
    }

    #[test]
    fn a_pod_is_known_by_its_annotations() {
        let of = |text: &str| group(text.as_bytes(), "id");
        assert_eq!(of(r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}"#), "pod");
        let both =
            r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod","io.containerd.runc.v2.group":"g"}}"#;
        assert_eq!(of(both), "g");
        assert_eq!((of("{}"), of("not JSON")), ("id".into(), "id".into()));
    }
}
