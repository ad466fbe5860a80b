//! The machines that filters are written for and their kinds of system call entry.
//!
//! It is facts only. The numbers of the calls are in [`super::tables`], what is made of both in
//! [`super::map`].

use crate::error::Diagnostic;
use oci_spec::runtime::Arch;
use std::ops::Range;

/// A machine, with everything that it can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    X86_64,
    Aarch64,
}

impl Machine {
    /// The machine of this build.
    #[cfg(target_arch = "x86_64")]
    pub const NATIVE: Machine = Machine::X86_64;
    #[cfg(target_arch = "aarch64")]
    pub const NATIVE: Machine = Machine::Aarch64;
}

/// One way into the kernel with its own call numbers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Abi {
    /// `AUDIT_ARCH_*`, which the filter sees.
    pub audit: u32,
    /// Its column of the table of calls.
    pub column: usize,
    /// The offset of its numbers from those in the table.
    pub offset: u32,
    /// Whether arguments have 64 bits.
    pub wide: bool,
    /// Numbers, without the offset, that stand apart from the sequence in which new calls are added.
    pub apart: Range<u32>,
    /// Whether `socketcall(2)` and `ipc(2)` are a second way to the calls that they multiplex.
    pub multiplexed: bool,
}

/// Bit 30 marks a call of x32, whose entry is otherwise that of x86_64.
pub(super) const X32_BIT: u32 = 0x4000_0000;
pub(super) const AUDIT_X86_64: u32 = 0xc000_003e;

const X86_64: Abi =
    Abi { audit: AUDIT_X86_64, column: 0, offset: 0, wide: true, apart: 0..0, multiplexed: false };
const X86: Abi =
    Abi { audit: 0x4000_0003, column: 1, offset: 0, wide: false, apart: 0..0, multiplexed: true };
/// 512 to 547 are calls that x32 numbers differently; new calls are never added there.
const X32: Abi =
    Abi { audit: AUDIT_X86_64, column: 2, offset: X32_BIT, wide: true, apart: 512..548, multiplexed: false };
const AARCH64: Abi =
    Abi { audit: 0xc000_00b7, column: 3, offset: 0, wide: true, apart: 0..0, multiplexed: false };
/// `cacheflush`, `set_tls` and others that only arm has are numbered from 0xf0000.
const ARM: Abi = Abi {
    audit: 0x4000_0028,
    column: 4,
    offset: 0,
    wide: false,
    apart: 0xf_0000..0xf_0800,
    multiplexed: false,
};

/// The entries that a profile covers: the native one always, and those listed that the machine has.
pub(super) fn listed(machine: Machine, listed: &[Arch], warnings: &mut Vec<Diagnostic>) -> Vec<&'static Abi> {
    let native = match machine {
        Machine::X86_64 => &X86_64,
        Machine::Aarch64 => &AARCH64,
    };
    let mut abis = vec![native];
    for (index, arch) in listed.iter().enumerate() {
        let abi = match (machine, arch) {
            (_, Arch::ScmpArchNative)
            | (Machine::X86_64, Arch::ScmpArchX86_64)
            | (Machine::Aarch64, Arch::ScmpArchAarch64) => native,
            (Machine::X86_64, Arch::ScmpArchX86) => &X86,
            (Machine::X86_64, Arch::ScmpArchX32) => &X32,
            (Machine::Aarch64, Arch::ScmpArchArm) => &ARM,
            _ => {
                // Nothing of that kind can run, and the filter kills what is not covered.
                let message = format!("{arch} cannot run on this machine; rules for it are not made");
                warnings.push(Diagnostic::warning(format!("linux.seccomp.architectures[{index}]"), message));
                continue;
            }
        };
        if !abis.contains(&abi) {
            abis.push(abi);
        }
    }
    abis
}
