//! `linux.netDevices`: interfaces of the host that move into the container.

use crate::error::{Error, Result};
use crate::parent::Child;
use oci_spec::runtime::Spec;

pub(crate) fn move_all(spec: &Spec, _init: &Child) -> Result<()> {
    let devices = spec.linux().as_ref().and_then(|linux| linux.net_devices().as_ref());
    match devices.and_then(|devices| devices.keys().next()) {
        None => Ok(()),
        Some(name) => {
            Err(Error::unsupported("moving network interfaces").at(format!("linux.netDevices[{name}]")))
        }
    }
}
