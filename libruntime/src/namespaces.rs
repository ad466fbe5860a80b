//! Questions about `linux.namespaces` that several modules ask.

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Spec};

/// The namespaces of a configuration; of each type at most one.
pub(crate) fn listed(spec: &Spec) -> &[LinuxNamespace] {
    let linux = spec.linux().as_ref();
    linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default()
}

/// Whether there is a namespace of this type, new or given by path.
pub(crate) fn has(namespaces: &[LinuxNamespace], kind: LinuxNamespaceType) -> bool {
    namespaces.iter().any(|namespace| namespace.typ() == kind)
}

/// Whether a namespace of this type is created for the container.
pub(crate) fn is_new(namespaces: &[LinuxNamespace], kind: LinuxNamespaceType) -> bool {
    namespaces.iter().any(|namespace| namespace.typ() == kind && namespace.path().is_none())
}
