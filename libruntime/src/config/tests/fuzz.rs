//! Whatever the text, the answer is a config or an error: never a panic, and never a config that its own
//! checks would refuse. `CONFIG_FUZZ_ROUNDS` sets how many texts are tried; a failure names its round, and
//! the same round gives the same text.

use super::corpus_files;
use crate::config::{Config, parse_process, parse_resources};
use serde_json::{Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// SplitMix64: a sequence that is the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.roll() % end.max(1) as u64) as usize
    }

    /// A value that is wrong, or extreme, in most places.
    fn value(&mut self, depth: usize) -> Value {
        const TEXTS: [&str; 16] = [
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
            "µ",
            "=",
            "A=",
            "c",
            "SCHED_FLAG_DL_OVERRUN",
            "CAP_NONE",
        ];
        match self.below(if depth == 0 { 7 } else { 9 }) {
            0 => Value::Null,
            1 => json!(self.below(2) == 0),
            2 => json!(self.below(5) as i64 - 2),
            3 => json!(self.roll() >> self.below(64)),
            4 => json!((self.roll() >> self.below(64)) as i64),
            5 => json!(f64::from_bits(self.roll())),
            6 => json!(TEXTS[self.below(TEXTS.len())]),
            7 => (0..self.below(3)).map(|_| self.value(depth - 1)).collect(),
            _ => (0..self.below(3))
                .map(|_| (TEXTS[self.below(TEXTS.len())].to_owned(), self.value(depth - 1)))
                .collect(),
        }
    }

    /// Replaces, wraps, doubles or removes one node of the tree.
    fn change(&mut self, tree: &mut Value) {
        if self.below(5) == 0 {
            *tree = match self.below(2) {
                0 => self.value(2),
                _ => json!([tree.take(), self.value(1)]),
            };
            return;
        }
        match tree {
            Value::Array(list) if !list.is_empty() => {
                let at = self.below(list.len());
                match self.below(8) {
                    0 => drop(list.remove(at)),
                    1 => list.push(list[at].clone()),
                    _ => self.change(&mut list[at]),
                }
            }
            Value::Object(map) if !map.is_empty() => {
                let key = map.keys().nth(self.below(map.len())).unwrap().clone();
                match self.below(8) {
                    0 => drop(map.remove(&key)),
                    _ => self.change(&mut map[&key]),
                }
            }
            _ => *tree = self.value(2),
        }
    }
}

fn rounds(default: u64, name: &str, run: impl Fn(&mut Dice, &Value)) {
    let rounds = std::env::var("CONFIG_FUZZ_ROUNDS").map_or(default, |text| text.parse().unwrap());
    let full = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/full.json").into();
    let files = corpus_files("-config-").into_iter().chain([full]);
    let configs: Vec<Value> =
        files.map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()).collect();
    for round in 0..rounds {
        let mut dice = Dice(round.wrapping_mul(0x1234_5678_9abc_def1));
        let which = dice.below(configs.len());
        let result = catch_unwind(AssertUnwindSafe(|| run(&mut dice, &configs[which])));
        assert!(result.is_ok(), "{name}: round {round}");
    }
}

#[test]
fn a_changed_config_never_panics() {
    rounds(1000, "changed config", |dice, config| {
        let mut config = config.clone();
        for _ in 0..=dice.below(3) {
            dice.change(&mut config);
        }
        let text = serde_json::to_vec(&config).unwrap();
        match Config::parse(&text) {
            Ok(parsed) => {
                // What was accepted is accepted again, from the types and from their own text.
                let again = serde_json::to_vec(&parsed.spec).unwrap();
                assert_eq!(Config::parse(&again).unwrap().spec, parsed.spec);
                Config::from_spec(parsed.spec).unwrap();
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        let part = |pointer| serde_json::to_vec(config.pointer(pointer).unwrap_or(&Value::Null)).unwrap();
        let _ = parse_process(&part("/process"));
        let _ = parse_resources(&part("/linux/resources"));
    });
}

#[test]
fn changed_bytes_never_panic() {
    rounds(1000, "changed bytes", |dice, config| {
        let mut text = serde_json::to_vec(config).unwrap();
        for _ in 0..dice.below(4) {
            let at = dice.below(text.len());
            text[at] = dice.roll() as u8;
        }
        let _ = Config::parse(&text);
        let _ = Config::parse(&text[..dice.below(text.len())]);
        let _ = parse_process(&text);
    });
}

/// The text knows more: what was left out, and lists in the place of objects.
#[test]
fn what_is_accepted_as_text_is_accepted_as_types() {
    rounds(1000, "types", |dice, config| {
        let mut config = config.clone();
        dice.change(&mut config);
        let text = serde_json::to_vec(&config).unwrap();
        if Config::parse(&text).is_ok()
            && let Ok(spec) = serde_json::from_slice(&text)
        {
            Config::from_spec(spec).unwrap();
        }
    });
}
