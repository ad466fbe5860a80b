//! Every configuration that real engines wrote is accepted, and nothing of it is lost.

use super::corpus_files as corpus;
use crate::config::{Config, parse_process};
use serde_json::Value;
use std::path::Path;

#[test]
fn the_corpus_is_complete() {
    assert_eq!((corpus("-config-").len(), corpus("-process-").len()), (58, 9));
}

#[test]
fn every_engines_config_is_accepted() {
    for path in corpus("-config-") {
        let bytes = std::fs::read(&path).unwrap();
        let config = Config::parse(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        // Buildah asks for ambient capabilities that are not inheritable.
        let expected = |at: &str| at == "process.capabilities.ambient";
        assert!(
            config.warnings.iter().all(|w| expected(&w.config_path)),
            "{}: {:?}",
            path.display(),
            config.warnings
        );
        assert_kept(&bytes, &serde_json::to_value(&config.spec).unwrap(), &path);
        Config::from_spec(config.spec).unwrap();
    }
}

#[test]
fn every_engines_process_is_accepted() {
    for path in corpus("-process-") {
        let bytes = std::fs::read(&path).unwrap();
        let (process, warnings) = parse_process(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(warnings, [], "{}", path.display());
        assert_kept(&bytes, &serde_json::to_value(&process).unwrap(), &path);
    }
}

/// Everything in the text is also in the typed value; the types may add defaults.
fn assert_kept(bytes: &[u8], typed: &Value, path: &Path) {
    let written: Value = serde_json::from_slice(bytes).unwrap();
    let mut lost = Vec::new();
    compare(&written, typed, "", &mut lost);
    assert_eq!(lost, Vec::<String>::new(), "{}", path.display());
}

fn compare(written: &Value, typed: &Value, at: &str, lost: &mut Vec<String>) {
    match (written, typed) {
        (Value::Object(written), Value::Object(typed)) => {
            for (key, value) in written.iter().filter(|(_, value)| !value.is_null()) {
                let at = format!("{at}.{key}");
                match typed.get(key) {
                    Some(typed) => compare(value, typed, &at, lost),
                    None => lost.push(at),
                }
            }
        }
        // Sets of capabilities have no order.
        (Value::Array(a), Value::Array(b))
            if at.starts_with(".process.capabilities.") || at.starts_with(".capabilities.") =>
        {
            if a.len() != b.len() || !a.iter().all(|name| b.contains(name)) {
                lost.push(at.to_owned());
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                compare(a, b, &format!("{at}[{i}]"), lost);
            }
        }
        _ if written == typed => {}
        _ => lost.push(at.to_owned()),
    }
}
