//! Whatever the text, the answer is a config or an error: never a panic, and never a config that its own
//! checks would refuse. `PROPTEST_CASES` sets how many texts are tried.

use libruntime::config::{Config, parse_process, parse_resources};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::LazyLock;

static CORPUS: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conformance/corpus");
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/full.json");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let configs = files.filter(|path| path.to_str().unwrap().contains("-config-")).chain([full]);
    configs.map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()).collect()
});

/// Values that are wrong, or extreme, somewhere.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-2_i64..3).prop_map(Value::from),
        prop::sample::select(vec![
            "",
            "/",
            ".",
            "..",
            "a\0b",
            "0-",
            "-1",
            "type",
            "SCMP_ACT_NOTIFY",
            "user",
            "µ"
        ])
        .prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..3)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// Replaces, removes or doubles the `nth` node of the tree, counted in order.
fn mutate(tree: &mut Value, nth: &mut usize, how: u8, with: &Value) -> bool {
    let done = |target: &mut Value, nth: &mut usize| {
        if *nth == 0 {
            *target = if how == 0 { with.clone() } else { json!([target.clone(), with.clone()]) };
            return true;
        }
        *nth -= 1;
        mutate(target, nth, how, with)
    };
    match tree {
        Value::Array(list) => {
            if how == 2 && *nth < list.len() {
                let copy = list[*nth].clone();
                list.push(copy);
                return true;
            }
            list.iter_mut().any(|item| done(item, nth))
        }
        Value::Object(map) => {
            if how == 3 && *nth < map.len() {
                let key = map.keys().nth(*nth).unwrap().clone();
                return map.remove(&key).is_some();
            }
            map.values_mut().any(|item| done(item, nth))
        }
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_config_never_panics(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((0_usize..600, 0_u8..4, value()), 1..4),
    ) {
        let mut config = CORPUS[which.index(CORPUS.len())].clone();
        for (nth, how, with) in changes {
            mutate(&mut config, &mut nth.clone(), how, &with);
        }
        let text = serde_json::to_vec(&config).unwrap();
        match Config::parse(&text) {
            Ok(parsed) => {
                // What was accepted is accepted again, from the types and from their own text.
                let again = serde_json::to_vec(&parsed.spec).unwrap();
                Config::from_spec(parsed.spec).unwrap();
                Config::parse(&again).unwrap();
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
        if let Some(process) = config.get("process") {
            let _ = parse_process(&serde_json::to_vec(process).unwrap());
        }
        if let Some(resources) = config.pointer("/linux/resources") {
            let _ = parse_resources(&serde_json::to_vec(resources).unwrap());
        }
    }

    #[test]
    fn changed_bytes_never_panic(
        which in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
        bytes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut text = serde_json::to_vec(&CORPUS[which.index(CORPUS.len())]).unwrap();
        for (at, byte) in bytes {
            let at = at.index(text.len());
            text[at] = byte;
        }
        let _ = Config::parse(&text);
        let _ = Config::parse(&text[..cut.index(text.len())]);
        let _ = parse_process(&text);
    }

    #[test]
    fn a_spec_is_judged_like_its_text(which in any::<prop::sample::Index>(), nth in 0_usize..600, with in value()) {
        let mut config = CORPUS[which.index(CORPUS.len())].clone();
        mutate(&mut config, &mut nth.clone(), 0, &with);
        if let Ok(spec) = serde_json::from_value::<oci_spec::runtime::Spec>(config.clone()) {
            let from_text = Config::parse(&serde_json::to_vec(&config).unwrap());
            // The text knows more: what was left out, and lists in the place of objects.
            if from_text.is_ok() {
                Config::from_spec(spec).unwrap();
            }
        }
    }
}
