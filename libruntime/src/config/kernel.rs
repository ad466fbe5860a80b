//! Checks of the rest of `linux`: cgroup path, propagation, labels, seccomp, resctrl, memory policy,
//! personality. The seccomp profile is compiled, and checked in depth, by `seccomp.rs`.

use super::found::{Found, each};
use super::list::number_list;
use oci_spec::runtime::{
    Linux, LinuxIntelRdt, LinuxMemoryPolicy, LinuxSeccomp, LinuxSeccompAction as Action,
    MemoryPolicyFlagType as Flag, MemoryPolicyModeType as Mode,
};

const PROPAGATIONS: [&str; 8] =
    ["private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"];

pub(crate) fn check(linux: &Linux, found: &mut Found) {
    if let Some(path) = linux.cgroups_path() {
        found.path(path, "linux.cgroupsPath");
    }
    if let Some(propagation) = linux.rootfs_propagation().as_deref()
        && !propagation.is_empty()
        && !PROPAGATIONS.contains(&propagation)
    {
        let text = format_args!("{propagation:?} is not one of {}", PROPAGATIONS.join(", "));
        found.problem("linux.rootfsPropagation", text);
    }
    found.text(linux.mount_label().as_deref().unwrap_or_default(), "linux.mountLabel");
    if let Some(seccomp) = linux.seccomp() {
        self::seccomp(seccomp, found);
    }
    if let Some(rdt) = linux.intel_rdt() {
        resctrl(rdt, found);
    }
    if let Some(policy) = linux.memory_policy() {
        memory_policy(policy, found);
    }
    let flags = linux.personality().as_ref().map_or(&[][..], |personality| each(personality.flags()));
    for (i, flag) in flags.iter().enumerate() {
        // The specification names no flag yet, and asks for an error for unsupported ones.
        found
            .problem(format_args!("linux.personality.flags[{i}]"), format_args!("{flag:?} is not supported"));
    }
}

fn seccomp(seccomp: &LinuxSeccomp, found: &mut Found) {
    let at = "linux.seccomp";
    let takes_errno = |action| matches!(action, Action::ScmpActErrno | Action::ScmpActTrace);
    if seccomp.default_errno_ret().is_some() && !takes_errno(seccomp.default_action()) {
        let text = format_args!("{} has no errno to return", seccomp.default_action());
        found.problem(format_args!("{at}.defaultErrnoRet"), text);
    }
    let syscalls = each(seccomp.syscalls());
    for (i, rule) in syscalls.iter().enumerate() {
        if rule.names().is_empty() {
            found.problem(
                format_args!("{at}.syscalls[{i}].names"),
                "is empty; a rule names at least one system call",
            );
        }
        if rule.errno_ret().is_some() && !takes_errno(rule.action()) {
            let text = format_args!("{} has no errno to return", rule.action());
            found.problem(format_args!("{at}.syscalls[{i}].errnoRet"), text);
        }
        for (j, arg) in each(rule.args()).iter().enumerate().filter(|(_, arg)| arg.index() > 5) {
            let text = format_args!("{}; a system call has the arguments 0 to 5", arg.index());
            found.problem(format_args!("{at}.syscalls[{i}].args[{j}].index"), text);
        }
    }
    let notify = seccomp.default_action() == Action::ScmpActNotify
        || syscalls.iter().any(|rule| rule.action() == Action::ScmpActNotify);
    match seccomp.listener_path() {
        Some(path) if notify => found.absolute(path, format_args!("{at}.listenerPath")),
        Some(_) => found.warning(format_args!("{at}.listenerPath"), "ignored: nothing uses SCMP_ACT_NOTIFY"),
        None if notify => {
            found.missing(format_args!("{at}.listenerPath"), "missing; SCMP_ACT_NOTIFY needs it")
        }
        None => {}
    }
}

/// closID becomes a directory of resctrl; "/" is the spec's word for its root.
#[allow(deprecated)] // the two flags are asked about in order to say that they are ignored
fn resctrl(rdt: &LinuxIntelRdt, found: &mut Found) {
    let at = "linux.intelRdt";
    if let Some(id) = rdt.clos_id()
        && id != "/"
        && (matches!(id.as_str(), "" | "." | "..") || id.contains(['/', '\n', '\0']))
    {
        found.problem(format_args!("{at}.closID"), format_args!("{id:?} cannot name a directory of resctrl"));
    }
    for (i, line) in each(rdt.schemata()).iter().enumerate() {
        if line.contains(['\n', '\0']) {
            found.problem(format_args!("{at}.schemata[{i}]"), "is not one line");
        }
    }
    for (schema, name) in [(rdt.l3_cache_schema(), "l3CacheSchema"), (rdt.mem_bw_schema(), "memBwSchema")] {
        found.text(schema.as_deref().unwrap_or_default(), format_args!("{at}.{name}"));
    }
    for (flag, name) in [(rdt.enable_cmt(), "enableCMT"), (rdt.enable_mbm(), "enableMBM")] {
        if *flag == Some(true) {
            let text = "ignored: runtime-spec 1.3 replaced it by enableMonitoring";
            found.warning(format_args!("{at}.{name}"), text);
        }
    }
}

/// The rules of set_mempolicy(2).
fn memory_policy(policy: &LinuxMemoryPolicy, found: &mut Found) {
    let at = "linux.memoryPolicy";
    let mode = policy.mode();
    let nodes = policy.nodes().as_deref().map(str::trim).unwrap_or_default();
    if !nodes.is_empty()
        && let Err(text) = number_list(nodes)
    {
        found.problem(format_args!("{at}.nodes"), text);
    }
    match mode {
        Mode::MpolDefault | Mode::MpolLocal if !nodes.is_empty() => {
            found.problem(format_args!("{at}.nodes"), format_args!("{mode} takes no nodes"))
        }
        Mode::MpolBind | Mode::MpolInterleave | Mode::MpolWeightedInterleave | Mode::MpolPreferredMany
            if nodes.is_empty() =>
        {
            found.problem(format_args!("{at}.nodes"), format_args!("missing; {mode} needs nodes"))
        }
        _ => {}
    }
    let flags = each(policy.flags());
    if flags.contains(&Flag::MpolFStaticNodes) && flags.contains(&Flag::MpolFRelativeNodes) {
        let text = "MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other";
        found.problem(format_args!("{at}.flags"), text);
    }
    if flags.contains(&Flag::MpolFNumaBalancing) && !matches!(mode, Mode::MpolBind | Mode::MpolPreferredMany)
    {
        let text = format_args!("MPOL_F_NUMA_BALANCING needs MPOL_BIND or MPOL_PREFERRED_MANY, not {mode}");
        found.problem(format_args!("{at}.flags"), text);
    }
    if nodes.is_empty() && flags.iter().any(|flag| *flag != Flag::MpolFNumaBalancing) {
        found.problem(format_args!("{at}.flags"), "flags about nodes need nodes");
    }
}
