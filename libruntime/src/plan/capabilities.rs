//! Capability sets as bits (capabilities(7)).

use super::Plan;
use crate::host::Host;
use crate::step::Capabilities;
use oci_spec::runtime::{Capability as C, LinuxCapabilities};

/// In the order of their numbers in `linux/capability.h`.
const NUMBERED: [C; 41] = [
    C::Chown,
    C::DacOverride,
    C::DacReadSearch,
    C::Fowner,
    C::Fsetid,
    C::Kill,
    C::Setgid,
    C::Setuid,
    C::Setpcap,
    C::LinuxImmutable,
    C::NetBindService,
    C::NetBroadcast,
    C::NetAdmin,
    C::NetRaw,
    C::IpcLock,
    C::IpcOwner,
    C::SysModule,
    C::SysRawio,
    C::SysChroot,
    C::SysPtrace,
    C::SysPacct,
    C::SysAdmin,
    C::SysBoot,
    C::SysNice,
    C::SysResource,
    C::SysTime,
    C::SysTtyConfig,
    C::Mknod,
    C::Lease,
    C::AuditWrite,
    C::AuditControl,
    C::Setfcap,
    C::MacOverride,
    C::MacAdmin,
    C::Syslog,
    C::WakeAlarm,
    C::BlockSuspend,
    C::AuditRead,
    C::Perfmon,
    C::Bpf,
    C::CheckpointRestore,
];

/// Loading a seccomp filter without no_new_privs takes it.
pub(super) const SYS_CHROOT: u64 = 1 << 18;
pub(super) const SYS_PTRACE: u64 = 1 << 19;
pub(super) const SYS_ADMIN: u64 = 1 << 21;
pub(super) const SYS_NICE: u64 = 1 << 23;

/// The names of all capabilities, in the order of their numbers.
pub fn names() -> Vec<String> {
    NUMBERED.iter().map(|capability| format!("CAP_{capability}")).collect()
}

fn bit(capability: C) -> u64 {
    NUMBERED.iter().position(|known| *known == capability).map_or(0, |number| 1 << number)
}

fn shown(set: u64) -> String {
    let names = NUMBERED.iter().filter(|capability| set & bit(**capability) != 0);
    names.map(|capability| format!("CAP_{capability}")).collect::<Vec<_>>().join(" ")
}

/// The sets of a process. What cannot be granted is left out with a warning, as the spec asks
/// (config.md, "capabilities"); a process that names no sets has none.
pub(super) fn sets(
    plan: &mut Plan,
    wanted: Option<&LinuxCapabilities>,
    host: &Host,
    in_user_namespace: bool,
) -> Capabilities {
    let Some(wanted) = wanted else { return Capabilities::default() };
    let bits = |set: &Option<std::collections::HashSet<C>>| {
        set.iter().flatten().fold(0, |bits, capability| bits | bit(*capability))
    };
    let (bounding, permitted) = (bits(wanted.bounding()), bits(wanted.permitted()));
    let (effective, inheritable) = (bits(wanted.effective()), bits(wanted.inheritable()));
    let ambient = bits(wanted.ambient());
    let all = bounding | permitted | effective | inheritable | ambient;
    // A process in a user namespace of its own has every capability there to begin with.
    let available = if in_user_namespace { u64::MAX } else { host.capabilities };
    if all & !available != 0 {
        let message = format!("left out, this host cannot grant them: {}", shown(all & !available));
        plan.warn("process.capabilities", message);
    }
    // Contradictions were warned about when the configuration was checked.
    let permitted = permitted & available;
    let inheritable = inheritable & available;
    let raisable = permitted & inheritable;
    Capabilities {
        bounding: bounding & available,
        effective: effective & permitted,
        inheritable,
        permitted,
        ambient: ambient & raisable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_kernel() {
        assert_eq!(bit(C::Chown), 1);
        assert_eq!(bit(C::SysAdmin), SYS_ADMIN);
        assert_eq!(bit(C::SysChroot), SYS_CHROOT);
        assert_eq!(bit(C::SysPtrace), SYS_PTRACE);
        assert_eq!(bit(C::SysNice), SYS_NICE);
        assert_eq!(bit(C::CheckpointRestore), 1 << 40);
        assert_eq!(names()[7], "CAP_SETUID");
    }
}
