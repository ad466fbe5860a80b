//! `linux.resources.devices`: which devices the container's processes may open and make.
//!
//! Pure: rules in the specification's order become either the lines for v1's `devices.allow` and `devices.deny`, or an
//! eBPF program for v2. `apply.rs` installs them. A device that no rule matches is denied, as in runc: engines rely on
//! that when they list what they allow.

use crate::error::{Diagnostic, Error, Result};
use crate::sys::bpf::Insn;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

const AT: &str = "linux.resources.devices";

pub(super) const MKNOD: u8 = 1;
pub(super) const READ: u8 = 2;
pub(super) const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

/// What every container may use, after the configuration's own rules: making any node (the nodes it
/// may not open are useless), null, zero, full, random, urandom, tty, console, ptmx, the
/// pseudo-terminals, and `/dev/net/tun` (all runcs but 1.2, and crun from 1.28).
pub const DEFAULT_RULES: &[Rule] = &[
    Rule::allow(Some(Kind::Char), None, None, MKNOD),
    Rule::allow(Some(Kind::Block), None, None, MKNOD),
    Rule::allow(Some(Kind::Char), Some(1), Some(3), ALL),
    Rule::allow(Some(Kind::Char), Some(1), Some(5), ALL),
    Rule::allow(Some(Kind::Char), Some(1), Some(7), ALL),
    Rule::allow(Some(Kind::Char), Some(1), Some(8), ALL),
    Rule::allow(Some(Kind::Char), Some(1), Some(9), ALL),
    Rule::allow(Some(Kind::Char), Some(5), Some(0), ALL),
    Rule::allow(Some(Kind::Char), Some(5), Some(1), ALL),
    Rule::allow(Some(Kind::Char), Some(5), Some(2), ALL),
    Rule::allow(Some(Kind::Char), Some(136), None, ALL),
    Rule::allow(Some(Kind::Char), Some(10), Some(200), ALL),
];

/// The values are those of the kernel's `bpf_cgroup_dev_ctx`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Block = 1,
    Char = 2,
}

/// One rule. `None` matches any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    allow: bool,
    kind: Option<Kind>,
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

impl Rule {
    const fn allow(kind: Option<Kind>, major: Option<u32>, minor: Option<u32>, access: u8) -> Self {
        Self { allow: true, kind, major, minor, access }
    }

    /// Whether it matches every access to every device, so that the rules before it have no effect.
    fn is_everything(&self) -> bool {
        self.kind.is_none() && self.major.is_none() && self.minor.is_none() && self.access == ALL
    }

    /// Whether this rule matches every device that `other` matches.
    fn covers(&self, other: &Self) -> bool {
        fn wider<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
            a.is_none() || a == b
        }
        wider(self.kind, other.kind) && wider(self.major, other.major) && wider(self.minor, other.minor)
    }

    /// Whether some device matches both rules.
    fn meets(&self, other: &Self) -> bool {
        fn common<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
            a.is_none() || b.is_none() || a == b
        }
        common(self.kind, other.kind) && common(self.major, other.major) && common(self.minor, other.minor)
    }

    /// In the form of systemd.resource-control(5): a node by its numbers, all nodes of a major number, or all nodes.
    fn device_allow(&self) -> Option<(String, String)> {
        let kind = match self.kind? {
            Kind::Block => "block",
            Kind::Char => "char",
        };
        let name = match (self.major, self.minor) {
            (None, None) => format!("{kind}-*"),
            (Some(major), None) => format!("{kind}-{major}"),
            (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
            (None, Some(_)) => return None,
        };
        Some((name, self.letters()))
    }

    fn letters(&self) -> String {
        [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')]
            .iter()
            .filter(|(bit, _)| self.access & bit != 0)
            .map(|(_, letter)| letter)
            .collect()
    }

    /// In the form of devices.allow and devices.deny.
    fn line(&self) -> String {
        let kind = match self.kind {
            Some(Kind::Block) => "b",
            Some(Kind::Char) => "c",
            None => "a",
        };
        let number = |value: Option<u32>| value.map_or("*".into(), |value| value.to_string());
        format!("{kind} {}:{} {}", number(self.major), number(self.minor), self.letters())
    }
}

/// The rules from the last one that matches everything: that one as the default, then the others in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub allow: bool,
    rules: Vec<Rule>,
}

impl Policy {
    /// The configuration's rules and the default ones after them.
    pub fn new(devices: &[LinuxDeviceCgroup]) -> Result<Self> {
        let mut findings = Vec::new();
        let mut rules = Vec::with_capacity(devices.len() + DEFAULT_RULES.len());
        for (index, device) in devices.iter().enumerate() {
            match rule(device) {
                Ok(rule) => rules.push(rule),
                Err((field, problem)) => {
                    findings.push(Diagnostic::new(format!("{AT}[{index}].{field}"), problem))
                }
            }
        }
        if !findings.is_empty() {
            return Err(Error::invalid(findings));
        }
        rules.extend_from_slice(DEFAULT_RULES);
        let base = rules.iter().rposition(Rule::is_everything);
        let allow = base.is_some_and(|index| rules[index].allow);
        let mut rules = rules.split_off(base.map_or(0, |index| index + 1));
        // Rules at the beginning that only repeat the default have no effect.
        let first = rules.iter().position(|rule| rule.allow != allow).unwrap_or(rules.len());
        rules.drain(..first);
        Ok(Self { allow, rules })
    }

    /// Nothing is forbidden (a privileged container).
    pub fn allows_everything(&self) -> bool {
        self.allow && self.rules.is_empty()
    }

    /// The exceptions from the default, for v1. Its lists only add an entry, and remove it when it is spelled in the
    /// same way; other combinations of rules cannot be expressed there.
    fn exceptions(&self) -> Result<Vec<Rule>> {
        let mut exceptions: Vec<Rule> = Vec::new();
        for rule in self.rules.iter().flat_map(|rule| split_kinds(*rule)) {
            if rule.allow != self.allow {
                match exceptions.iter_mut().find(|e| e.covers(&rule) && rule.covers(e)) {
                    Some(same) => same.access |= rule.access,
                    None => exceptions.push(rule),
                }
                continue;
            }
            for exception in &mut exceptions {
                if rule.covers(exception) {
                    exception.access &= !rule.access;
                } else if rule.meets(exception) && exception.access & rule.access != 0 {
                    return Err(Error::unsupported(format!(
                        "cgroup v1 cannot take \"{}\" out of \"{}\"",
                        rule.line(),
                        exception.line()
                    ))
                    .at(AT)
                    .with_hint("list the devices one by one, or use a host with cgroup v2"));
                }
            }
            exceptions.retain(|exception| exception.access != 0);
        }
        Ok(exceptions)
    }

    /// The state that a v1 `devices` cgroup has to reach.
    pub fn v1(&self) -> Result<V1> {
        Ok(V1 { allow: self.allow, exceptions: self.exceptions()?.iter().map(Rule::line).collect() })
    }

    /// `DeviceAllow` for systemd on v1, which writes its own lists at each reload, with the policy `strict`. Rules that
    /// systemd cannot express are not allowed there. `None` where everything is allowed.
    pub fn device_allow(&self) -> Result<Option<Vec<(String, String)>>> {
        if self.allows_everything() {
            return Ok(None);
        }
        let exceptions = if self.allow { Vec::new() } else { self.exceptions()? };
        Ok(Some(exceptions.iter().filter_map(Rule::device_allow).collect()))
    }

    /// The eBPF program that decides as these rules do.
    ///
    /// An access may have several bits at once (opening for reading and writing). Going backwards, the first rule that
    /// matches a bit decides it: r3 holds the undecided bits.
    pub fn program(&self) -> Vec<Insn> {
        let mut program = vec![
            insn(LOAD_WORD, 2, 1, 0, 0),    // r2 = context.access_type
            insn(MOVE, 3, 2, 0, 0),         // r3 = r2
            insn(AND, 2, 0, 0, 0xffff),     // r2: kind of device
            insn(SHIFT_RIGHT, 3, 0, 0, 16), // r3: accesses asked for
            insn(LOAD_WORD, 4, 1, 4, 0),    // r4 = context.major
            insn(LOAD_WORD, 5, 1, 8, 0),    // r5 = context.minor
        ];
        for rule in self.rules.iter().rev() {
            let decide = if rule.allow {
                // The rest is the mask's complement in the three access bits.
                let rest = i32::from(ALL & !rule.access);
                vec![
                    insn(AND, 3, 0, 0, rest),
                    insn(JUMP_IF_NOT, 3, 0, 2, 0),
                    insn(SET, 0, 0, 0, 1),
                    insn(EXIT, 0, 0, 0, 0),
                ]
            } else {
                vec![
                    insn(JUMP_IF_ANY, 3, 0, 1, i32::from(rule.access)),
                    insn(JUMP, 0, 0, 2, 0),
                    insn(SET, 0, 0, 0, 0),
                    insn(EXIT, 0, 0, 0, 0),
                ]
            };
            let tests = [(2, rule.kind.map(|kind| kind as u32)), (4, rule.major), (5, rule.minor)];
            let tests: Vec<_> = tests.iter().filter_map(|(reg, value)| Some((*reg, (*value)?))).collect();
            for (index, (register, value)) in tests.iter().enumerate() {
                let over = (tests.len() - index - 1 + decide.len()) as i16;
                program.push(insn(JUMP_IF_NOT, *register, 0, over, *value as i32));
            }
            program.extend(decide);
        }
        program.push(insn(SET, 0, 0, 0, i32::from(self.allow)));
        program.push(insn(EXIT, 0, 0, 0, 0));
        program
    }
}

/// A v1 `devices` cgroup: allow or deny by default, and lines that say the reverse.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct V1 {
    pub allow: bool,
    pub exceptions: Vec<String>,
}

// The instructions that are used, by their names in the kernel's instruction set documentation:
// BPF_LDX|W|MEM, BPF_ALU64 with MOV|X, AND|K, RSH|K, MOV|K, BPF_JMP32 JNE|K, BPF_JMP JSET|K, JA, EXIT.
const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xbf;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const SET: u8 = 0xb7;
const JUMP_IF_NOT: u8 = 0x56;
const JUMP_IF_ANY: u8 = 0x45;
const JUMP: u8 = 0x05;
const EXIT: u8 = 0x95;

const fn insn(code: u8, to: u8, from: u8, off: i16, imm: i32) -> Insn {
    Insn { code, regs: from << 4 | to, off, imm }
}

/// v1 has no rule for any kind with this number: it gets one rule for each kind.
fn split_kinds(rule: Rule) -> Vec<Rule> {
    match rule.kind {
        Some(_) => vec![rule],
        None => [Kind::Block, Kind::Char].map(|kind| Rule { kind: Some(kind), ..rule }).to_vec(),
    }
}

/// One entry of the configuration, or the field that is wrong and why.
fn rule(device: &LinuxDeviceCgroup) -> std::result::Result<Rule, (&'static str, String)> {
    let kind = match device.typ() {
        None | Some(LinuxDeviceType::A) => None,
        Some(LinuxDeviceType::B) => Some(Kind::Block),
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(Kind::Char),
        Some(LinuxDeviceType::P) => return Err(("type", "a FIFO is no device; use a, b or c".into())),
    };
    let number = |value: Option<i64>, field| match value {
        None | Some(-1) => Ok(None),
        Some(value) => {
            u32::try_from(value).map(Some).map_err(|_| (field, format!("{value} is not a device number")))
        }
    };
    let access = device.access().as_deref().unwrap_or("");
    let mut bits = 0;
    for letter in access.chars() {
        bits |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            _ => return Err(("access", format!("{access:?} has letters other than r, w and m"))),
        };
    }
    if bits == 0 && device.allow() {
        return Err(("access", "is missing: say what is allowed, of r, w and m".into()));
    }
    // A denial without accesses denies all of them, which is the safe reading.
    let access = if bits == 0 { ALL } else { bits };
    let (major, minor) = (number(device.major(), "major")?, number(device.minor(), "minor")?);
    Ok(Rule { allow: device.allow(), kind, major, minor, access })
}

#[cfg(test)]
#[path = "devices_tests.rs"]
mod tests;
