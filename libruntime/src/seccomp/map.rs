//! From rules to a map: for each entry into the kernel, what is decided for every 32-bit call number.
//!
//! Calls that the profile cannot have known are told apart here. A call newer than the newest one that the
//! profile names, on that entry, returns ENOSYS when the default is to refuse: programs fall back to an older
//! call on ENOSYS and give up on EPERM, and a profile cannot name what was invented after it. runc does the
//! same. Numbers below the newest that the profile does not name have the default action, gaps in the
//! numbering included. Numbers that stand apart (`Abi::apart`) neither count as newest nor are taken for new.
//!
//! It writes no instruction; see [`super::program`].

use super::arch::{AUDIT_X86_64, Abi, X32_BIT};
use super::rules::{self, Clause, Condition, KILL_PROCESS, REFUSE_AS_UNKNOWN, Rules};
use super::tables;
use oci_spec::runtime::LinuxSeccompOperator as Operator;

const SOCKETCALL: u32 = 102;

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Always the same action.
    Return(u32),
    /// It depends on the arguments: an index of [`Map::chains`].
    Chain(usize),
}

/// All numbers of one audit architecture.
pub(super) struct Map {
    pub audit: u32,
    pub wide: bool,
    /// Where each decision starts, ascending from 0; neighbours differ.
    pub intervals: Vec<(u32, Decision)>,
    /// Clauses in the order in which they are tried.
    pub chains: Vec<Vec<usize>>,
}

impl Map {
    fn decision(&self, number: u32) -> Option<Decision> {
        let after = self.intervals.partition_point(|(start, _)| *start <= number);
        after.checked_sub(1).and_then(|at| self.intervals.get(at)).map(|(_, decision)| *decision)
    }

    /// Whether a call is allowed, whatever its arguments are.
    pub fn allows(&self, number: u32) -> bool {
        matches!(self.decision(number), Some(Decision::Return(action)) if rules::lets_through(action))
    }

    /// What a call returns whose arguments are zero but for the first.
    pub fn action(&self, rules: &Rules, number: u32, first: u64) -> u32 {
        match self.decision(number) {
            Some(Decision::Return(action)) => action,
            Some(Decision::Chain(chain)) => {
                let argument = |condition: &Condition| if condition.argument == 0 { first } else { 0 };
                let clauses = self.chains[chain].iter().map(|id| &rules.clauses[*id]);
                let holds = |clause: &&Clause| clause.conditions.iter().all(|c| c.holds(argument(c)));
                clauses.into_iter().find(holds).map_or(rules.default, |clause| clause.action)
            }
            None => rules.default,
        }
    }
}

/// One map for each audit architecture, the native one first.
pub(super) fn build(rules: &mut Rules, abis: &[&Abi]) -> Vec<Map> {
    let mut maps: Vec<Map> = Vec::with_capacity(2);
    for abi in abis {
        if maps.iter().any(|map| map.audit == abi.audit) {
            continue;
        }
        let together: Vec<&Abi> = abis.iter().copied().filter(|other| other.audit == abi.audit).collect();
        let background = background(rules, &together);
        let said = said(rules, &together);
        let mut map = Map { audit: abi.audit, wide: abi.wide, intervals: Vec::new(), chains: Vec::new() };
        let points = decide(rules, &said, &mut map.chains);
        map.intervals = overlay(&background, &points);
        maps.push(map);
    }
    maps
}

/// What is decided for numbers that no rule names, ascending.
fn background(rules: &Rules, abis: &[&Abi]) -> Vec<(u32, Decision)> {
    let mut background = Vec::new();
    for abi in abis.iter().filter(|abi| abi.offset == 0) {
        let refused = unnamed(rules, abi, &mut background);
        if abi.audit == AUDIT_X86_64 {
            match abis.iter().find(|abi| abi.offset == X32_BIT) {
                Some(x32) => drop(unnamed(rules, x32, &mut background)),
                None => background.push((X32_BIT, Decision::Return(KILL_PROCESS))),
            }
            // -1 has bit 30 as well, but it is how a tracer says "no call"; libseccomp excepts it too.
            background.push((u32::MAX, refused));
        }
    }
    background
}

/// The same for one entry; returns what its largest numbers get.
fn unnamed(rules: &Rules, abi: &Abi, background: &mut Vec<(u32, Decision)>) -> Decision {
    let default = Decision::Return(rules.default);
    background.push((abi.offset, default));
    let calls = rules.list.iter().flat_map(|rule| &rule.calls);
    let numbers = calls.map(|call| call.1[abi.column]).filter(|&n| n != tables::NONE);
    let newest = numbers.filter(|n| !abi.apart.contains(n)).max();
    let Some(newest) = newest.filter(|_| rules.refuses_by_default()) else { return default };
    let unknown = Decision::Return(REFUSE_AS_UNKNOWN);
    background.push((abi.offset + newest + 1, unknown));
    if newest < abi.apart.start {
        background.push((abi.offset + abi.apart.start, default));
        background.push((abi.offset + abi.apart.end, unknown));
    }
    unknown
}

/// A clause for a call number. One word, because sorting these is a large part of the work.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Said(u64);

impl Said {
    fn new(number: u32, clause: usize) -> Self {
        Self(u64::from(number) << 32 | clause as u64)
    }

    fn number(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn clause(self) -> usize {
        self.0 as u32 as usize
    }
}

/// The clauses by call number: sorted by number, then as in the profile.
fn said(rules: &mut Rules, abis: &[&Abi]) -> Vec<Said> {
    let mut said = Vec::with_capacity(1024);
    for abi in abis {
        for rule in &rules.list {
            let numbers = rule.calls.iter().map(|call| call.1[abi.column]).filter(|&n| n != tables::NONE);
            for number in numbers.map(|number| number | abi.offset) {
                said.extend(rule.clauses.clone().map(|clause| Said::new(number, clause)));
            }
        }
        if abi.multiplexed {
            multiplexed(rules, &mut said);
        }
    }
    said.sort_unstable();
    said.dedup();
    said
}

/// Rules for `socket`, `shmat` and others hold for the calls that multiplex them, too.
///
/// Their arguments are behind a pointer there, out of a filter's sight. A conditional rule that is stricter
/// than the default therefore holds always, and one that is not stricter does not hold at all. (libseccomp
/// compares whatever the registers of the outer call have, and lets `ipc` calls with a version through.)
fn multiplexed(rules: &mut Rules, said: &mut Vec<Said>) {
    // Unconditional rules come first, as for the direct calls.
    for always in [true, false] {
        for rule in &rules.list {
            for inner in rule.calls.iter().map(|call| call.1[tables::INNER]).filter(|&n| n != tables::NONE) {
                for id in rule.clauses.clone() {
                    let Clause { ref conditions, action } = rules.clauses[id];
                    let holds = conditions.is_empty() || rules.stricter_than_default(action);
                    if holds && conditions.is_empty() == always {
                        said.push(Said::new(inner >> 16, rules.clauses.len()));
                        rules.clauses.push(Clause { conditions: vec![inner_call(inner)], action });
                    }
                }
            }
        }
    }
}

/// The first argument is the inner call; that of `ipc` has a version in its upper half.
fn inner_call(inner: u32) -> Condition {
    let mask = if inner >> 16 == SOCKETCALL { u64::MAX } else { 0xffff };
    let value = u64::from(inner & 0xffff);
    Condition { argument: 0, operator: Operator::ScmpCmpMaskedEq, mask, value }
}

/// The decision for each number that rules are about, ascending.
fn decide(rules: &Rules, said: &[Said], chains: &mut Vec<Vec<usize>>) -> Vec<(u32, Decision)> {
    let mut points = Vec::with_capacity(said.len());
    for group in said.chunk_by(|a, b| a.number() == b.number()) {
        let always = group.iter().map(|said| &rules.clauses[said.clause()]).find(|c| c.conditions.is_empty());
        let decision = match always {
            Some(clause) => Decision::Return(clause.action),
            None => {
                let chain: Vec<usize> = group.iter().map(|said| said.clause()).collect();
                let known = chains.iter().position(|other| *other == chain);
                Decision::Chain(known.unwrap_or_else(|| {
                    chains.push(chain);
                    chains.len() - 1
                }))
            }
        };
        points.push((group[0].number(), decision));
    }
    for chain in chains {
        rules::in_order_of_precedence(chain, &rules.clauses);
    }
    points
}

/// Puts single numbers over what lies behind them, and joins equal neighbours.
fn overlay(background: &[(u32, Decision)], points: &[(u32, Decision)]) -> Vec<(u32, Decision)> {
    let mut intervals = Vec::with_capacity(2 * points.len() + background.len());
    let mut points = points.iter().copied().peekable();
    for (index, &(start, behind)) in background.iter().enumerate() {
        let next = background.get(index + 1).map(|interval| interval.0);
        push(&mut intervals, start, behind);
        while let Some((number, decision)) = points.next_if(|point| next.is_none_or(|next| point.0 < next)) {
            push(&mut intervals, number, decision);
            if let Some(after) = number.checked_add(1) {
                push(&mut intervals, after, behind);
            }
        }
    }
    intervals
}

/// Ends the last interval at `start`, where another begins.
fn push(intervals: &mut Vec<(u32, Decision)>, start: u32, decision: Decision) {
    if intervals.last().is_some_and(|last| last.0 == start) {
        intervals.pop();
    }
    if intervals.last().is_none_or(|last| last.1 != decision) {
        intervals.push((start, decision));
    }
}
