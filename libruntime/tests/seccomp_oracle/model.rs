//! What a profile means, as directly as it can be said: no maps, no programs, every rule tried for every
//! call.

use super::libseccomp;
use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompArg, LinuxSeccompOperator};
use oci_spec::runtime::{LinuxSeccompAction as Action, LinuxSyscall};
use std::collections::BTreeSet;

pub const X32_BIT: u32 = 0x4000_0000;
pub const ENOSYS: u32 = 0x0005_0026;
pub const KILL_PROCESS: u32 = 0x8000_0000;

/// The architecture that a call belongs to.
pub fn arch_of(audit: u32, number: u32) -> Option<Arch> {
    match audit {
        0xc000_003e if number & X32_BIT != 0 && number != u32::MAX => Some(Arch::ScmpArchX32),
        0xc000_003e => Some(Arch::ScmpArchX86_64),
        0x4000_0003 => Some(Arch::ScmpArchX86),
        0xc000_00b7 => Some(Arch::ScmpArchAarch64),
        0x4000_0028 => Some(Arch::ScmpArchArm),
        _ => None,
    }
}

/// Whether libseccomp says which number a call has. x32 got `map_shadow_stack` later than x86_64 did, and
/// versions that know the name may not know that.
pub fn in_libseccomp(arch: Arch, name: &str) -> bool {
    libseccomp::knows(name) && (arch, name) != (Arch::ScmpArchX32, "map_shadow_stack")
}

/// The number of a call: libseccomp's, or for a newer call, whose number all architectures
/// share, the one in another table.
pub fn number(arch: Arch, name: &str) -> Option<u32> {
    if let (Arch::ScmpArchX86, Ok(call)) = (arch, name.parse::<syscalls::x86::Sysno>()) {
        // libseccomp has numbers of its own for the calls that x86 multiplexes.
        return Some(call.id() as u32);
    }
    if in_libseccomp(arch, name) {
        return libseccomp::number(arch, name);
    }
    let number = match name {
        "listns" => 470,
        "rseq_slice_yield" => 471,
        _ => name.parse::<syscalls::x86_64::Sysno>().ok()?.id() as u32,
    };
    match arch {
        Arch::ScmpArchX86_64 => Some(number),
        Arch::ScmpArchX32 => Some(number | X32_BIT),
        // `uretprobe` and `uprobe` (335, 336) are x86_64's own.
        _ => (number >= 424).then_some(number),
    }
}

/// The alternatives of an entry: all its conditions, or each of them if two are about one argument.
pub fn alternatives(rule: &LinuxSyscall) -> Vec<Vec<LinuxSeccompArg>> {
    let args = rule.args().clone().unwrap_or_default();
    let indices: BTreeSet<usize> = args.iter().map(LinuxSeccompArg::index).collect();
    if indices.len() == args.len() { vec![args] } else { args.into_iter().map(|arg| vec![arg]).collect() }
}

fn holds(condition: &LinuxSeccompArg, arguments: &[u64; 6], wide: bool) -> bool {
    let cut = |value: u64| if wide { value } else { value & 0xffff_ffff };
    let (argument, value) = (cut(arguments[condition.index()]), cut(condition.value()));
    match condition.op() {
        LinuxSeccompOperator::ScmpCmpNe => argument != value,
        LinuxSeccompOperator::ScmpCmpLt => argument < value,
        LinuxSeccompOperator::ScmpCmpLe => argument <= value,
        LinuxSeccompOperator::ScmpCmpEq => argument == value,
        LinuxSeccompOperator::ScmpCmpGe => argument >= value,
        LinuxSeccompOperator::ScmpCmpGt => argument > value,
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            argument & value == cut(condition.value_two().unwrap_or(0)) & value
        }
    }
}

/// A profile, with the numbers that each entry is about looked up.
pub struct Model<'a> {
    pub seccomp: &'a LinuxSeccomp,
    pub arch: Arch,
    rules: Vec<(BTreeSet<u32>, &'a LinuxSyscall)>,
}

impl<'a> Model<'a> {
    pub fn new(seccomp: &'a LinuxSeccomp, arch: Arch) -> Self {
        let numbers =
            |rule: &LinuxSyscall| rule.names().iter().filter_map(|name| number(arch, name)).collect();
        let rules = seccomp.syscalls().iter().flatten().map(|rule| (numbers(rule), rule)).collect();
        Self { seccomp, arch, rules }
    }

    pub fn default(&self) -> u32 {
        self.seccomp.default_action().as_u32(self.seccomp.default_errno_ret())
    }

    /// What a call may get: one action, or several where conditional rules that disagree match.
    pub fn decide(&self, number: u32, arguments: &[u64; 6]) -> BTreeSet<u32> {
        let native = matches!(self.arch, Arch::ScmpArchX86_64 | Arch::ScmpArchAarch64);
        if !native && !self.seccomp.architectures().iter().flatten().any(|listed| *listed == self.arch) {
            return BTreeSet::from([KILL_PROCESS]);
        }
        let wide = !matches!(self.arch, Arch::ScmpArchX86 | Arch::ScmpArchArm);
        let mut always = None;
        let mut sometimes = BTreeSet::new();
        for rule in self.rules.iter().filter(|rule| rule.0.contains(&number)).map(|rule| rule.1) {
            let action = rule.action().as_u32(rule.errno_ret());
            if action == self.default() {
                continue;
            }
            for alternative in alternatives(rule) {
                if alternative.is_empty() {
                    always = always.or(Some(action));
                } else if alternative.iter().all(|condition| holds(condition, arguments, wide)) {
                    sometimes.insert(action);
                }
            }
        }
        match always {
            Some(action) => BTreeSet::from([action]),
            None if !sometimes.is_empty() => sometimes,
            None if self.is_new(number) => BTreeSet::from([ENOSYS]),
            None => BTreeSet::from([self.default()]),
        }
    }

    /// How many conditional alternatives there are for a call.
    pub fn conditional_alternatives(&self, number: u32) -> usize {
        let rules = self.rules.iter().filter(|rule| rule.0.contains(&number));
        rules.flat_map(|rule| alternatives(rule.1)).filter(|alternative| !alternative.is_empty()).count()
    }

    pub fn has_conditions(&self, number: u32) -> bool {
        self.conditional_alternatives(number) > 0
    }

    /// Whether the profile's author cannot have known a call, and whoever calls it may be told so.
    pub fn is_new(&self, number: u32) -> bool {
        let apart = match self.arch {
            Arch::ScmpArchX32 => X32_BIT + 512..X32_BIT + 548,
            Arch::ScmpArchArm => 0xf0000..0xf0800,
            _ => 0..0,
        };
        let permits = matches!(
            self.seccomp.default_action(),
            Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace
        );
        let named = self.rules.iter().flat_map(|rule| &rule.0);
        let newest = named.filter(|number| !apart.contains(number)).max();
        !permits && !apart.contains(&number) && newest.is_some_and(|&newest| number > newest)
    }
}
