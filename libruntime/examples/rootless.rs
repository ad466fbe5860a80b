//! A container of a user without privileges, who is root in it: `rootless BUNDLE`.

use libruntime::Runtime;
use libruntime::oci_spec::runtime::{LinuxIdMappingBuilder as Mapping, LinuxNamespaceBuilder as Namespace};
use libruntime::oci_spec::runtime::{LinuxNamespaceType, Spec};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bundle = std::path::PathBuf::from(std::env::args().nth(1).ok_or("usage: rootless BUNDLE")?);
    let mut spec = Spec::load(bundle.join("config.json"))?;
    let mut linux = spec.linux().clone().ok_or("config.json has no linux")?;
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    namespaces.push(Namespace::default().typ(LinuxNamespaceType::User).build()?);
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let one = |host: u32| Mapping::default().container_id(0u32).host_id(host).size(1u32).build();
    linux.set_namespaces(Some(namespaces)).set_uid_mappings(Some(vec![one(uid)?]));
    linux.set_gid_mappings(Some(vec![one(gid)?]));
    spec.set_linux(Some(linux));
    let runtime = Runtime::new(std::env::temp_dir().join(format!("rootless-{uid}")));
    let output = runtime.container("rootless").bundle(&bundle).spec(spec).output()?;
    print!("{}: {}", output.status, String::from_utf8_lossy(&output.stdout));
    Ok(())
}
