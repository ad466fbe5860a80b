//! `-info`: what containerd asks before the first container of a runtime.

use crate::bootstrap;
use crate::failure::{Failure, Result};
use crate::wire::{Any, RuntimeInfo, RuntimeVersion};
use prost::Message;

pub const VERSION: &str = env!("CARGO_PKG_VERSION");
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// Returns what is to be printed.
pub fn info(input: &[u8]) -> Result<Vec<u8>> {
    let features = serde_json::to_vec(&libruntime::features()?);
    let value = features.map_err(|error| Failure::unknown(format!("encode the features: {error}")))?;
    let info = RuntimeInfo {
        name: "containerd-shim-onggi-v2".into(),
        version: Some(RuntimeVersion { version: VERSION.into(), revision: String::new() }),
        options: bootstrap::any(input)?,
        features: Some(Any { type_url: FEATURES.into(), value }),
    };
    Ok(info.encode_to_vec())
}
