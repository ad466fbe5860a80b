//! Assembles maps into a classic BPF program: the entry is looked up, then the number by binary search, then, where
//! that matters, the arguments are compared.
//!
//! The program is written from its end to its start: then the target of every jump has its place already, and no
//! address has to be filled in later. Conditional jumps reach 255 instructions; for a longer way a stepping stone is
//! put in between. No instruction of the search looks at an argument, so that the kernel can know in advance (and skip
//! the filter for) calls that are always allowed.
//!
//! It decides nothing about calls; that was done in [`super::map`].

use super::map::{Decision, Map};
use super::rules::{Condition, KILL_PROCESS, Rules};
use oci_spec::runtime::LinuxSeccompOperator as Operator;

// Instruction codes, from <linux/bpf_common.h>.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_GREATER: u16 = 0x25;
const IF_NOT_LESS: u16 = 0x35;

// Offsets into struct seccomp_data.
const NUMBER: u32 = 0;
const AUDIT_ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

const REACH: usize = 255;

#[derive(Clone, Copy)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    operand: u32,
}

/// An instruction, counted from the end of the program.
type Label = usize;

/// The program so far, last instruction first.
struct Program {
    backwards: Vec<Instruction>,
    /// For each value, the nearest instruction that returns it.
    returns: Vec<(u32, Label)>,
}

/// The program for all maps, in the encoding of `struct sock_filter`.
pub(super) fn assemble(maps: &[Map], rules: &Rules) -> Vec<u8> {
    let mut program = Program { backwards: Vec::with_capacity(1024), returns: Vec::new() };
    let mut otherwise = program.returning(KILL_PROCESS);
    for map in maps.iter().rev() {
        let chains: Vec<Label> = map.chains.iter().map(|ids| program.chain(ids, map.wide, rules)).collect();
        let search = program.search(&map.intervals, &chains);
        let search = program.load(NUMBER, search);
        otherwise = program.branch(IF_EQUAL, map.audit, search, otherwise);
    }
    program.load(AUDIT_ARCH, otherwise);
    program.encoded()
}

impl Program {
    fn push(&mut self, code: u16, if_true: u8, if_false: u8, operand: u32) -> Label {
        self.backwards.push(Instruction { code, if_true, if_false, operand });
        self.backwards.len() - 1
    }

    /// How many instructions the next one would have to jump over to reach `target`.
    fn distance(&self, target: Label) -> usize {
        self.backwards.len() - 1 - target
    }

    /// Loads a word and goes on with `then`.
    fn load(&mut self, offset: u32, then: Label) -> Label {
        let then = self.adjacent(then);
        debug_assert_eq!(self.distance(then), 0);
        self.push(LOAD, 0, 0, offset)
    }

    /// Makes the next instruction do the same as `target`.
    fn adjacent(&mut self, target: Label) -> Label {
        if self.distance(target) == 0 { target } else { self.stepping_stone(target) }
    }

    fn returning(&mut self, value: u32) -> Label {
        match self.returns.iter().find(|known| known.0 == value) {
            Some(&(_, label)) => label,
            None => {
                let label = self.push(RETURN, 0, 0, value);
                self.returns.push((value, label));
                label
            }
        }
    }

    /// An instruction within reach that does the same as `target`.
    fn stepping_stone(&mut self, target: Label) -> Label {
        let there = self.backwards[target];
        if there.code != RETURN {
            return self.push(JUMP, 0, 0, self.distance(target) as u32);
        }
        let copy = self.push(RETURN, 0, 0, there.operand);
        if let Some(known) = self.returns.iter_mut().find(|known| known.0 == there.operand) {
            known.1 = copy;
        }
        copy
    }

    fn branch(&mut self, code: u16, operand: u32, if_true: Label, if_false: Label) -> Label {
        // One less for the first, because the second may put a stone in between.
        let if_true = if self.distance(if_true) < REACH { if_true } else { self.stepping_stone(if_true) };
        let if_false =
            if self.distance(if_false) <= REACH { if_false } else { self.stepping_stone(if_false) };
        let (to_true, to_false) = (self.distance(if_true), self.distance(if_false));
        assert!(to_true <= REACH && to_false <= REACH, "a stepping stone is next to the jump");
        self.push(code, to_true as u8, to_false as u8, operand)
    }

    /// Binary search for the number in the accumulator.
    fn search(&mut self, intervals: &[(u32, Decision)], chains: &[Label]) -> Label {
        let leaf = |program: &mut Self, decision| match decision {
            Decision::Return(value) => program.returning(value),
            Decision::Chain(index) => chains[index],
        };
        match *intervals {
            [(_, only)] => leaf(self, only),
            // One number that is an exception, which the search often ends at.
            [(_, around), (number, exception), (after, same)] if around == same && number + 1 == after => {
                let around = leaf(self, around);
                let exception = leaf(self, exception);
                self.branch(IF_EQUAL, number, exception, around)
            }
            _ => {
                let (below, above) = intervals.split_at(intervals.len() / 2);
                let start = above[0].0;
                let above = self.search(above, chains);
                let below = self.search(below, chains);
                self.branch(IF_NOT_LESS, start, above, below)
            }
        }
    }

    /// The first clause whose conditions hold decides, and the default if there is none.
    fn chain(&mut self, clauses: &[usize], wide: bool, rules: &Rules) -> Label {
        let mut otherwise = self.returning(rules.default);
        for clause in clauses.iter().rev().map(|&id| &rules.clauses[id]) {
            let mut holds = self.returning(clause.action);
            for condition in clause.conditions.iter().rev() {
                holds = self.compare(condition, wide, holds, otherwise);
            }
            otherwise = holds;
        }
        otherwise
    }

    fn compare(&mut self, condition: &Condition, wide: bool, holds: Label, fails: Label) -> Label {
        // Half of the operators are negations of the other half.
        let (code, holds, fails) = match condition.operator {
            Operator::ScmpCmpEq => (IF_EQUAL, holds, fails),
            Operator::ScmpCmpNe => (IF_EQUAL, fails, holds),
            Operator::ScmpCmpGe => (IF_NOT_LESS, holds, fails),
            Operator::ScmpCmpLt => (IF_NOT_LESS, fails, holds),
            Operator::ScmpCmpGt => (IF_GREATER, holds, fails),
            Operator::ScmpCmpLe => (IF_GREATER, fails, holds),
            Operator::ScmpCmpMaskedEq => return self.compare_masked(condition, wide, holds, fails),
        };
        let (low, high) = (condition.value as u32, (condition.value >> 32) as u32);
        let compared = self.branch(code, low, holds, fails);
        let compared = self.load(low_half(condition), compared);
        if !wide {
            return compared;
        }
        let equal = self.branch(IF_EQUAL, high, compared, fails);
        let decided = if code == IF_EQUAL { equal } else { self.branch(IF_GREATER, high, holds, equal) };
        self.load(high_half(condition), decided)
    }

    /// A half whose mask is empty needs no look.
    fn compare_masked(&mut self, condition: &Condition, wide: bool, holds: Label, fails: Label) -> Label {
        let mut holds = holds;
        let halves = [(low_half(condition), 0), (high_half(condition), 32)];
        for (offset, shift) in halves.into_iter().take(if wide { 2 } else { 1 }) {
            let (mask, value) = ((condition.mask >> shift) as u32, (condition.value >> shift) as u32);
            if mask == 0 {
                continue;
            }
            holds = self.branch(IF_EQUAL, value, holds, fails);
            if mask != u32::MAX {
                holds = self.push(AND, 0, 0, mask);
            }
            holds = self.load(offset, holds);
        }
        holds
    }

    fn encoded(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 * self.backwards.len());
        for instruction in self.backwards.iter().rev() {
            let ([c0, c1], [k0, k1, k2, k3]) =
                (instruction.code.to_ne_bytes(), instruction.operand.to_ne_bytes());
            bytes.extend([c0, c1, instruction.if_true, instruction.if_false, k0, k1, k2, k3]);
        }
        bytes
    }
}

// Both machines are little-endian: the low half comes first.
fn low_half(condition: &Condition) -> u32 {
    ARGUMENTS + 8 * condition.argument
}

fn high_half(condition: &Condition) -> u32 {
    low_half(condition) + 4
}
