//! The operations that `v1.rs` and `v2.rs` return and `apply.rs` carries out: which file gets which value, and how the
//! old value is restored. Pure data.

use std::path::PathBuf;

/// One operation; a list of them is carried out in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Op {
    Set(Write),
    /// Values that bound each other (memory and memory+swap; quota, period and burst): which must be
    /// written first depends on the old ones. A write that the kernel finds invalid is tried again
    /// after the others.
    Coupled(Vec<Write>),
    /// Refuses a limit below the present usage (`checkBeforeUpdate`).
    AtLeastUsage {
        controller: &'static str,
        file: &'static str,
        limit: i64,
        at: &'static str,
    },
    /// v1: the realtime budget of the cgroups above comes first.
    RaiseParentBudgets {
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
    /// The first word of the file's present text stays, and this follows it (`cpu.max` without a quota).
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
    /// The line of this key; where there was none, this value removes the entry.
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

/// The writes that restore everything, the newest last; `None` where nothing will be restored.
pub(super) type Journal = Option<Vec<(PathBuf, String)>>;
