//! Changes to JSON that leave it JSON: a node is replaced, doubled, removed or moved elsewhere.

use serde_json::{Value, json};

struct Dice(u64);

impl Dice {
    /// SplitMix64.
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.roll() % end.max(1) as u64) as usize
    }

    /// Something extreme or of another type.
    fn value(&mut self) -> Value {
        const TEXTS: [&str; 12] =
            ["", "/", ".", "../x", "a\0b", "0-", "4294967295", "SCMP_ACT_NOTIFY", "rbind", "µ", "A=", "a b"];
        match self.below(8) {
            0 => Value::Null,
            1 => json!(self.below(2) == 0),
            2 => json!(self.below(5) as i64 - 2),
            3 => json!(self.roll() >> self.below(64)),
            4 => json!((self.roll() >> self.below(64)) as i64),
            5 => json!([]),
            6 => json!({}),
            _ => json!(TEXTS[self.below(TEXTS.len())]),
        }
    }

    /// Changes one node; `other` is one from elsewhere in the tree.
    fn change(&mut self, tree: &mut Value, other: &Value) {
        match tree {
            Value::Array(list) if !list.is_empty() && self.below(6) != 0 => {
                let at = self.below(list.len());
                match self.below(8) {
                    0 => drop(list.remove(at)),
                    1 => list.push(list[at].clone()),
                    2 => list.push(other.clone()),
                    _ => self.change(&mut list[at], other),
                }
            }
            Value::Object(map) if !map.is_empty() && self.below(8) != 0 => {
                let Some(key) = map.keys().nth(self.below(map.len())).cloned() else { return };
                if self.below(10) == 0 {
                    map.remove(&key);
                } else if let Some(member) = map.get_mut(&key) {
                    self.change(member, other);
                }
            }
            Value::Number(number) if self.below(2) == 0 => {
                let near = number.as_i64().unwrap_or(0).wrapping_add(self.below(5) as i64 - 2);
                *tree = json!(near);
            }
            _ if self.below(3) == 0 => *tree = other.clone(),
            _ => *tree = self.value(),
        }
    }

    fn pick<'a>(&mut self, tree: &'a Value) -> &'a Value {
        let inner = match tree {
            Value::Array(list) if !list.is_empty() => list.get(self.below(list.len())),
            Value::Object(map) if !map.is_empty() => map.values().nth(self.below(map.len())),
            _ => None,
        };
        match inner {
            Some(inner) if self.below(4) != 0 => self.pick(inner),
            _ => tree,
        }
    }
}

/// The text with one to three changes; nothing where it is no JSON.
pub fn changed(text: &[u8], seed: u32) -> Option<Vec<u8>> {
    let mut tree: Value = serde_json::from_slice(text).ok()?;
    let mut dice = Dice(seed.into());
    for _ in 0..=dice.below(3) {
        let other = dice.pick(&tree).clone();
        dice.change(&mut tree, &other);
    }
    serde_json::to_vec(&tree).ok()
}
