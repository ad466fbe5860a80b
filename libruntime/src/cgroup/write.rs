//! The words that `v1.rs` and `v2.rs` speak in and `apply.rs` carries out: which file gets which value, and what puts
//! the old one back. Pure data.

use std::path::PathBuf;

/// One piece of work, in the order of the list that it is in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Op {
    Set(Write),
    /// Values that bound each other (memory and memory+swap; quota, period and burst): which must be
    /// written first depends on the old ones. A write that the kernel finds invalid is tried again
    /// after the others.
    Together(Vec<Write>),
    /// Refuse a limit below what is in use now (`checkBeforeUpdate`).
    AtLeastUsage {
        controller: &'static str,
        file: &'static str,
        limit: i64,
        at: &'static str,
    },
    /// v1: the realtime budget of the cgroups above comes first.
    HandDown {
        runtime: i64,
        period: Option<u64>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub controller: String,
    pub file: String,
    pub value: Value,
    /// The place in the configuration.
    pub at: String,
    pub missing: Missing,
    pub undo: Undo,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Is(String),
    /// The first word of the file's present text stays, this follows (`cpu.max` without a quota).
    AfterFirstWord(String),
}

/// When there is no such file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Fail(Option<&'static str>),
    Skip,
    Instead(Box<Write>),
}

/// How to restore the file from its old text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Undo {
    Whole,
    /// The line of this key; where there was none, this value takes the entry away.
    Keyed(String, &'static str),
    /// The second word of the first line (`oom_kill_disable 0`).
    SecondWord,
}

impl Write {
    pub fn new(
        controller: &str,
        file: impl Into<String>,
        value: impl ToString,
        at: impl Into<String>,
    ) -> Self {
        Self {
            controller: controller.into(),
            file: file.into(),
            value: Value::Is(value.to_string()),
            at: at.into(),
            missing: Missing::Fail(None),
            undo: Undo::Whole,
        }
    }

    pub fn missing(mut self, missing: Missing) -> Self {
        self.missing = missing;
        self
    }

    pub fn undo(mut self, undo: Undo) -> Self {
        self.undo = undo;
        self
    }
}

/// The writes that put everything back, newest last; `None` when nobody will want that.
pub(super) type Journal = Option<Vec<(PathBuf, String)>>;
