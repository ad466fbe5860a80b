//! `update`: changes the limits of a container. Not in the specification; it takes a `linux.resources` object, or flags
//! for its properties.

use crate::cli::{Flag, Parsed, Verb};
use crate::failure::Failure;
use crate::global::Global;
use crate::input;
use serde_json::{Value, json};

pub const VERB: Verb = Verb {
    name: "update",
    about: "change the limits of a container",
    arguments: "<container-id>",
    count: (1, 1),
    trailing: false,
    text: "Sizes take a unit: b, k, m, g, t or p, such as 512M; -1 means no limit.\n\
           What is not named stays as it is. With --resources no other limit is read.",
    flags: &[
        Flag::value("resources", "FILE", "a linux.resources object; - reads standard input").short("r"),
        Flag::value("blkio-weight", "N", "share of block I/O, 10 to 1000"),
        Flag::value("cpu-period", "MICROSECONDS", "the period of the CPU quota"),
        Flag::value("cpu-quota", "MICROSECONDS", "CPU time in each period"),
        Flag::value("cpu-burst", "MICROSECONDS", "CPU time that may be saved up"),
        Flag::value("cpu-share", "N", "share of CPU time"),
        Flag::value("cpu-rt-period", "MICROSECONDS", "the period of the realtime quota"),
        Flag::value("cpu-rt-runtime", "MICROSECONDS", "realtime CPU time in each period"),
        Flag::value("cpu-idle", "0|1", "run only when the CPU is otherwise idle"),
        Flag::value("cpuset-cpus", "LIST", "processors, such as 0-2,5"),
        Flag::value("cpuset-mems", "LIST", "memory nodes"),
        Flag::value("memory", "SIZE", "memory"),
        Flag::value("memory-reservation", "SIZE", "memory that is kept under pressure"),
        Flag::value("memory-swap", "SIZE", "memory and swap together"),
        Flag::value("kernel-memory", "SIZE", "obsolete; has no effect"),
        Flag::value("kernel-memory-tcp", "SIZE", "obsolete; has no effect"),
        Flag::value("pids-limit", "N", "number of processes; -1 is no limit"),
        Flag::value("l3-cache-schema", "SCHEMA", "cache of its linux.intelRdt class"),
        Flag::value("mem-bw-schema", "SCHEMA", "memory bandwidth of its linux.intelRdt class"),
    ],
    run,
};

/// Flags that are whole numbers, and the property that each stands for.
const NUMBERS: &[(&str, &str)] = &[
    ("blkio-weight", "/blockIO/weight"),
    ("cpu-period", "/cpu/period"),
    ("cpu-quota", "/cpu/quota"),
    ("cpu-burst", "/cpu/burst"),
    ("cpu-share", "/cpu/shares"),
    ("cpu-rt-period", "/cpu/realtimePeriod"),
    ("cpu-rt-runtime", "/cpu/realtimeRuntime"),
    ("cpu-idle", "/cpu/idle"),
    ("pids-limit", "/pids/limit"),
];

const SIZES: &[(&str, &str)] = &[
    ("memory", "/memory/limit"),
    ("memory-reservation", "/memory/reservation"),
    ("memory-swap", "/memory/swap"),
];

const TEXTS: &[(&str, &str)] = &[("cpuset-cpus", "/cpu/cpus"), ("cpuset-mems", "/cpu/mems")];

pub fn run(global: &Global, args: &Parsed) -> Result<u8, Failure> {
    for flag in ["kernel-memory", "kernel-memory-tcp"] {
        if args.get(flag).is_some() {
            global.warn(&format!("--{flag} has no effect: kernels no longer have this limit"));
        }
    }
    let container = global.load(args)?;
    let bytes = match args.get("resources").filter(|file| !file.is_empty()) {
        Some(file) => {
            if NUMBERS.iter().chain(SIZES).chain(TEXTS).any(|(flag, _)| args.get(flag).is_some()) {
                global.warn("other limits are not read, because there is --resources");
            }
            if file == "-" { input::read_standard() } else { input::read(file) }?
        }
        None => resources(args)?.to_string().into_bytes(),
    };
    let schema = |flag| args.get(flag).filter(|value| !value.is_empty());
    let (cache, bandwidth) = (schema("l3-cache-schema"), schema("mem-bw-schema"));
    if cache.is_some() || bandwidth.is_some() {
        container.update_schemata(cache, bandwidth)?;
    }
    let (resources, warnings) = libruntime::parse_resources(&bytes)?;
    global.warn_of(&warnings);
    global.warn_of(&container.update(&resources)?);
    Ok(0)
}

/// The flags as a `linux.resources` object.
pub fn resources(args: &Parsed) -> Result<Value, Failure> {
    let mut object = json!({});
    for (flag, property) in NUMBERS {
        if let Some(number) = args.number::<i64>(flag)? {
            set(&mut object, property, number.into());
        }
    }
    for (flag, property) in SIZES {
        if let Some(text) = args.get(flag) {
            let bytes = size(text);
            let bytes = bytes
                .ok_or_else(|| Failure::new(format!("invalid value for {flag}: invalid size: '{text}'")))?;
            set(&mut object, property, bytes.into());
        }
    }
    for (flag, property) in TEXTS {
        if let Some(text) = args.get(flag) {
            set(&mut object, property, text.into());
        }
    }
    Ok(object)
}

fn set(object: &mut Value, property: &str, value: Value) {
    if let [_, section, name] = property.split('/').collect::<Vec<_>>()[..] {
        object[section][name] = value;
    }
}

/// Bytes, with a unit of powers of 1024: `1.5g`, `512M`, `64KiB`, `1000`.
fn size(text: &str) -> Option<i64> {
    let text = text.trim();
    if text == "-1" {
        return Some(-1);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let power = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let factor = 1i64 << (10 * power);
    match number.parse::<i64>() {
        Ok(number) => number.checked_mul(factor),
        Err(_) => {
            let bytes = number.parse::<f64>().ok()? * factor as f64;
            (bytes < i64::MAX as f64).then_some(bytes as i64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("1000", 1000),
            ("-1", -1),
            ("512M", 512 << 20),
            ("64KiB", 64 << 10),
            ("1.5g", 3 << 29),
            ("2tb", 2 << 40),
            ("7b", 7),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "M", "-2", "12x", "1..5g", "99999999999999p", "1 2"] {
            assert_eq!(size(text), None, "{text}");
        }
    }
}
