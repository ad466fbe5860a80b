//! What this build knows, as the spec's features structure (features.md, features-linux.md).
//!
//! It describes the build and not the host, with one exception that the specification makes: the seccomp flags that
//! this kernel supports. `check.rs` says what else the host lacks. The lists come from the modules that act on them, so
//! that they cannot claim more than is done.

use crate::error::{Error, Result};
use crate::{plan, seccomp, sys};
use oci_spec::runtime::Features;
use serde_json::{Value, json};

/// The features structure of the specification (features.md), complete.
///
/// # Errors
/// [`ErrorKind::Internal`](crate::ErrorKind::Internal): the crate `oci-spec` does not know a name that is in it.
pub fn features() -> Result<Features> {
    let failed = |error| Error::internal(format!("the features do not fit their type: {error}"));
    serde_json::from_value(known()).map_err(failed)
}

fn known() -> Value {
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.3.0",
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": plan::known_mount_options(),
        "linux": linux(),
        "annotations": {
            "io.onggi.version": env!("CARGO_PKG_VERSION"),
            // By this name, which crun has too, callers find out that a runtime has `checkpoint` and `restore`.
            "org.opencontainers.runc.checkpoint.enabled": "true",
        },
        // A trailing dot stands for all annotations with this prefix (features.md).
        "potentiallyUnsafeConfigAnnotations":
            [
                "org.onggi.network.",
                "org.systemd.property.",
                crate::hook_stdio::ANNOTATIONS[0],
                crate::hook_stdio::ANNOTATIONS[1],
                "run.oci.keep_original_groups",
            ],
    })
}

fn linux() -> Value {
    json!({
        "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
        "capabilities": plan::known_capabilities(),
        "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true },
        "seccomp": {
            "enabled": true,
            "actions": seccomp::known_actions(),
            "operators": seccomp::known_operators(),
            "archs": seccomp::known_architectures(),
            "knownFlags": flags(|_| true),
            "supportedFlags": flags(|bits| sys::knows_seccomp_flags(bits.into())),
        },
        "apparmor": { "enabled": true },
        "selinux": { "enabled": true },
        "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
        "memoryPolicy": {
            "modes": [
                "MPOL_BIND",
                "MPOL_DEFAULT",
                "MPOL_INTERLEAVE",
                "MPOL_LOCAL",
                "MPOL_PREFERRED",
                "MPOL_PREFERRED_MANY",
                "MPOL_WEIGHTED_INTERLEAVE",
            ],
            "flags": ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"],
        },
        "mountExtensions": { "idmap": { "enabled": true } },
        "netDevices": { "enabled": true },
    })
}

fn flags(wanted: impl Fn(u32) -> bool) -> Vec<&'static str> {
    seccomp::known_flags().iter().filter(|(_, bits)| wanted(*bits)).map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_recursive_attribute_and_capability_is_listed() {
        let features = serde_json::to_value(super::features().unwrap()).unwrap();
        let has = |at: &str, name: &str| {
            features
                .pointer(at)
                .and_then(|list| list.as_array())
                .is_some_and(|list| list.contains(&name.into()))
        };
        for option in ["rro", "rnosuid", "rslave", "idmap", "nosymfollow", "tmpcopyup"] {
            assert!(has("/mountOptions", option), "{option}");
        }
        assert!(has("/linux/capabilities", "CAP_CHECKPOINT_RESTORE"));
    }

    /// Every kernel that onggi runs on has these three; a flag that no kernel has is not taken.
    #[test]
    fn the_kernel_is_asked_for_seccomp_flags() {
        let features = serde_json::to_value(super::features().unwrap()).unwrap();
        let supported = features.pointer("/linux/seccomp/supportedFlags").and_then(|list| list.as_array());
        for flag in ["LOG", "SPEC_ALLOW", "TSYNC"] {
            let name = format!("SECCOMP_FILTER_FLAG_{flag}");
            assert!(supported.is_some_and(|list| list.contains(&name.as_str().into())), "{name}");
        }
        assert!(!crate::sys::knows_seccomp_flags(1 << 30));
    }
}
