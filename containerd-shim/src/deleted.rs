//! Answers of deletions: a caller that gave up asks again, and must not learn that there is nothing. Pure.

use crate::model::{Key, Reply, Token};
use std::collections::VecDeque;

/// Answers that nobody took, at most.
const REMEMBERED: usize = 64;

#[derive(Default)]
pub struct Deletions(VecDeque<Deleted>);

struct Deleted {
    key: Key,
    tokens: Vec<Token>,
    is_lost: bool,
    reply: Reply,
}

impl Deletions {
    pub fn remember(&mut self, key: Key, tokens: Vec<Token>, reply: Reply) {
        self.0.push_back(Deleted { key, tokens, is_lost: false, reply });
        if self.0.len() > REMEMBERED {
            self.0.pop_front();
        }
    }

    /// Nobody took the answer.
    pub fn unanswered(&mut self, token: Token) {
        if let Some(lost) = self.0.iter_mut().find(|one| one.tokens.contains(&token)) {
            lost.is_lost = true;
        }
    }

    /// The answer for `token`, where an earlier caller gave up.
    pub fn again(&mut self, token: Token, key: &Key) -> Option<Reply> {
        let at = self.0.iter().position(|one| one.key == *key && one.is_lost)?;
        let reply = self.0.remove(at)?.reply;
        self.remember(key.clone(), vec![token], reply.clone());
        Some(reply)
    }

    /// The id belongs to another container now.
    pub fn forget(&mut self, id: &str) {
        self.0.retain(|one| one.key.id != id);
    }
}
