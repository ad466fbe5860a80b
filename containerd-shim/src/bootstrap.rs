//! The dialects in which containerd asks for a shim and understands the answer: 1.6 to 2.2 give flags and an
//! `Any`, 2.3 and later a `BootstrapParams`. Pure: bytes in, bytes out. start.rs does it.

use crate::args::Args;
use crate::failure::{Failure, Result};
use crate::wire::{Any, BootstrapParams, BootstrapResult};
use prost::Message;

/// What containerd's standard input holds, at most.
pub const MAX_INPUT: u64 = 10 << 20;
const DEFAULT_SOCKET_DIR: &str = "/run/containerd/s";

/// What a shim is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    pub id: String,
    pub namespace: String,
    pub grpc_address: String,
    pub ttrpc_address: String,
    pub socket_dir: String,
    pub options: Option<Any>,
    pub dialect: Dialect,
    pub debug: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Up to 2.2.
    Flags,
    /// From 2.3 on.
    Params,
}

/// `ttrpc` is the value of `TTRPC_ADDRESS`.
pub fn parse(args: &Args, ttrpc: Option<String>, input: &[u8]) -> Result<Wanted> {
    if args.id.is_empty() || args.namespace.is_empty() {
        return Err(Failure::invalid("the flags -id and -namespace are needed"));
    }
    match params(args, input) {
        Some(params) => Ok(Wanted {
            id: params.instance_id,
            namespace: params.namespace,
            grpc_address: or(params.grpc_address, &args.address),
            ttrpc_address: or(params.ttrpc_address, &ttrpc.unwrap_or_default()),
            socket_dir: or(params.socket_dir, DEFAULT_SOCKET_DIR),
            options: params.extensions.into_iter().filter_map(|one| one.value).find(is_options),
            dialect: Dialect::Params,
            debug: args.debug || params.log_level < 0,
        }),
        None => Ok(Wanted {
            id: args.id.clone(),
            namespace: args.namespace.clone(),
            grpc_address: args.address.clone(),
            ttrpc_address: ttrpc.unwrap_or_default(),
            socket_dir: DEFAULT_SOCKET_DIR.into(),
            options: any(input)?,
            dialect: Dialect::Flags,
            debug: args.debug,
        }),
    }
}

/// An `Any` can be read as `BootstrapParams` as well: both begin with two texts. They are parameters only where these
/// are the id and the namespace of the flags.
fn params(args: &Args, input: &[u8]) -> Option<BootstrapParams> {
    let params = BootstrapParams::decode(input).ok()?;
    (params.instance_id == args.id && params.namespace == args.namespace).then_some(params)
}

/// Empty input means none.
pub fn any(input: &[u8]) -> Result<Option<Any>> {
    if input.is_empty() {
        return Ok(None);
    }
    let any = Any::decode(input);
    any.map(Some).map_err(|error| Failure::invalid(format!("options on standard input: {error}")))
}

fn is_options(any: &Any) -> bool {
    let name = any.type_url.rsplit('/').next().unwrap_or_default();
    [crate::options::RUNC, crate::options::CRI].contains(&name)
}

fn or(value: String, other: &str) -> String {
    if value.is_empty() { other.into() } else { value }
}

/// The bare address is understood by all up to 2.2, as version 2 of the task interface. A sandbox, which has no
/// configuration, is possible with version 3 alone.
pub fn answer(dialect: Dialect, address: &str, is_of_container: bool) -> Vec<u8> {
    match dialect {
        Dialect::Params => {
            BootstrapResult { version: 3, address: address.into(), protocol: "ttrpc".into() }.encode_to_vec()
        }
        Dialect::Flags if is_of_container => address.into(),
        Dialect::Flags => {
            serde_json::json!({ "version": 3, "address": address, "protocol": "ttrpc" }).to_string().into()
        }
    }
}

#[cfg(test)]
#[path = "bootstrap_tests.rs"]
mod tests;
