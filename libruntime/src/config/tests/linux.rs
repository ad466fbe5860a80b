//! The `linux` object without its resources.

use super::check;

const ROW: &str = r#"[{"containerID":0,"hostID":100000,"size":65536}]"#;

/// A new user namespace with mappings, as a change of the minimal config.
fn user() -> String {
    format!(
        "linux.namespaces[6] = {{\"type\":\"user\"}}\nlinux.uidMappings = {ROW}\nlinux.gidMappings = {ROW}\n"
    )
}

#[test]
fn namespaces_are_known_single_and_absolute() {
    for typ in ["pid", "network", "mount", "ipc", "uts", "cgroup", "time"] {
        check(&format!("linux.namespaces = [{{\"type\":{typ:?}}}]"), "");
        check(&format!("linux.namespaces = [{{\"type\":{typ:?},\"path\":\"/proc/1/ns/x\"}}]"), "");
        check(
            &format!("linux.namespaces = [{{\"type\":{typ:?}}},{{\"type\":{typ:?},\"path\":\"/x\"}}]"),
            &format!("linux.namespaces[1].type: {typ} is already in linux.namespaces[0]"),
        );
    }
    check(r#"linux.namespaces[2].type = "net""#, "linux.namespaces[2].type: unknown value \"net\"");
    check(r#"linux.namespaces[2].path = "ns""#, "linux.namespaces[2].path: not an absolute path");
    check(r#"linux.namespaces[2].path = """#, "");
    check(r#"linux.namespaces[2].path = "/a\u0000""#, "linux.namespaces[2].path: NUL");
    check("linux.namespaces[2].type", "linux.namespaces[2].type: missing");
    check("linux.namespaces = []", "");
}

#[test]
fn a_user_namespace_has_mappings() {
    check(&user(), "");
    check(&(user() + "linux.uidMappings"), "linux.uidMappings: missing");
    check(
        &(user() + "linux.uidMappings = []\nlinux.gidMappings = null"),
        "linux.uidMappings: missing\nlinux.gidMappings: missing",
    );
    check(r#"linux.namespaces[6] = {"type":"user","path":"/proc/1/ns/user"}"#, "");
    // containerd repeats the mappings of the namespace that is joined.
    check(&(user() + "linux.namespaces[6].path = \"/proc/1/ns/user\""), "");
    check(
        &format!("linux.uidMappings = {ROW}\nlinux.gidMappings = {ROW}"),
        "warning linux.gidMappings: no user namespace\nwarning linux.uidMappings: no user namespace",
    );
}

#[test]
fn mappings_follow_the_kernels_rules() {
    let rows = |rows: &str| format!("{}linux.uidMappings = [{rows}]", user());
    let row = |inside: u32, outside: u32, size: u32| {
        format!(r#"{{"containerID":{inside},"hostID":{outside},"size":{size}}}"#)
    };
    let at = "linux.uidMappings";
    check(&rows(&format!("{},{}", row(0, 0, 1), row(1, 1, u32::MAX - 1))), "");
    check(&rows(&row(0, 5, 0)), &format!("{at}[0].size: missing or 0\nprocess.user.uid: 0 is not mapped"));
    check(
        &rows(r#"{"containerID":0,"hostID":5}"#),
        &format!("{at}[0].size: missing or 0\nprocess.user.uid: 0 is not mapped"),
    );
    check(&rows(r#"{"containerID":0,"size":5}"#), &format!("{at}[0].hostID: missing"));
    check(&rows(r#"{"hostID":0,"size":5}"#), &format!("{at}[0].containerID: missing"));
    check(&rows(&row(0, 1, u32::MAX)), &format!("{at}[0].hostID: beyond"));
    check(
        &rows(&format!("{},{}", row(0, 10, 10), row(9, 30, 1))),
        &format!("{at}[1].containerID: overlaps {at}[0]"),
    );
    check(
        &rows(&format!("{},{}", row(0, 10, 10), row(10, 19, 1))),
        &format!("{at}[1].hostID: overlaps {at}[0]"),
    );
    check(&rows(&format!("{},{}", row(0, 10, 10), row(10, 20, 1))), "");
    let many = |count: u32| (0..count).map(|i| row(i, i, 1)).collect::<Vec<_>>().join(",");
    check(&rows(&many(340)), "");
    check(&rows(&many(341)), &format!("{at}: 341 rows; the kernel takes at most 340"));
    check(&rows(&many(10_000)), &format!("{at}: 10000 rows"));
    check(
        &rows(r#"{"containerID":0,"hostID":4294967296,"size":1}"#),
        &format!("{at}[0].hostID: is 4294967296"),
    );
}

#[test]
fn the_processs_ids_are_mapped() {
    check(&(user() + "process.user = {\"uid\":65535,\"gid\":65535}"), "");
    check(
        &(user() + "process.user = {\"uid\":65536,\"gid\":70000,\"additionalGids\":[1,80000]}"),
        "process.user.uid: 65536 is not mapped
         process.user.gid: 70000 is not mapped
         process.user.additionalGids[1]: 80000 is not mapped",
    );
    check(&(user() + "linux.namespaces[6].path = \"/x\"\nprocess.user = {\"uid\":65536,\"gid\":1}"), "");
}

#[test]
fn sysctls_belong_to_a_namespace_of_the_container() {
    let set = |key: &str| format!("linux.sysctl = {{{key:?}:\"1\"}}");
    for key in [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
        "fs.mqueue.msg_max",
        "net.ipv4.ip_forward",
        "net/core/somaxconn",
        "net.ipv4.conf.eth0/1.forwarding",
        "kernel.domainname",
        "kernel/sem",
    ] {
        check(&set(key), "");
        check(
            &(set(key) + "\nlinux.namespaces = [{\"type\":\"mount\"}]"),
            &format!("linux.sysctl.{key}: namespace in linux.namespaces; it would change the host's"),
        );
    }
    for key in [
        "kernel.core_pattern",
        "vm.swappiness",
        "kernel.sem.x",
        "kernel",
        "net",
        "fs.file-max",
        "fs.mqueue",
        "user.max_user_namespaces",
        "kernel.shmmax2",
        "kernel.yama.ptrace_scope",
        "Net.ipv4.ip_forward",
    ] {
        check(&set(key), &format!("linux.sysctl.{key}: belongs to no namespace"));
    }
    for key in [
        "net/../kernel/core_pattern",
        "net.//.//.kernel.core_pattern",
        "/net/x",
        "net..x",
        "net.x.",
        "",
        "net/./x",
    ] {
        check(&set(key), &format!("linux.sysctl.{key}: not the name of a sysctl"));
    }
    check(&set("kernel.hostname"), "linux.sysctl.kernel.hostname: property hostname");
    check(r#"linux.sysctl = {"net.a":"1\u0000"}"#, "linux.sysctl.net.a: NUL");
    check(r#"linux.sysctl = {"net.a":1}"#, "linux.sysctl.net.a: is 1; expected a string");
}

#[test]
fn clock_offsets_need_a_new_time_namespace() {
    check(r#"linux.timeOffsets = {"monotonic":{"secs":-5,"nanosecs":999999999},"boottime":{"secs":9}}"#, "");
    check("linux.timeOffsets = {}\nlinux.namespaces = []", "");
    check(
        "linux.timeOffsets = {\"boottime\":{}}\nlinux.namespaces = []",
        "linux.timeOffsets: needs a time namespace",
    );
    check(
        "linux.timeOffsets = {\"boottime\":{}}\nlinux.namespaces[6].path = \"/x\"",
        "linux.timeOffsets: needs a time",
    );
    check(r#"linux.timeOffsets = {"realtime":{}}"#, "linux.timeOffsets.realtime: not a clock");
    check(
        r#"linux.timeOffsets = {"boottime":{"nanosecs":1000000000}}"#,
        "linux.timeOffsets.boottime.nanosecs: more than",
    );
    check(
        r#"linux.timeOffsets = {"boottime":{"secs":9223372037}}"#,
        "linux.timeOffsets.boottime.secs: beyond",
    );
    check(
        r#"linux.timeOffsets = {"boottime":{"secs":-9223372036854775808}}"#,
        "linux.timeOffsets.boottime.secs: beyond",
    );
}

#[test]
fn network_devices_have_interface_names() {
    check(r#"linux.netDevices = {"eth0":{"name":"net1"},"eth1":{},"eth2":{"name":""}}"#, "");
    check(r#"linux.netDevices = {"abcdefghijklmno":{"name":"x"}}"#, "");
    for bad in ["abcdefghijklmnop", "a/b", "a:b", "a b", ".", "..", "", "a\tb", "a%d", "a\u{a0}b"] {
        check(
            &format!("linux.netDevices = {{{bad:?}:{{\"name\":\"x\"}}}}").replace("\\u{a0}", "\u{a0}"),
            &format!("linux.netDevices.{bad}: cannot name an interface"),
        );
        if !bad.is_empty() {
            check(
                &format!("linux.netDevices = {{\"eth0\":{{\"name\":{bad:?}}}}}").replace("\\u{a0}", "\u{a0}"),
                "linux.netDevices.eth0.name: cannot name an interface",
            );
        }
    }
    check(
        r#"linux.netDevices = {"a":{"name":"c"},"b":{"name":"c"}}"#,
        "linux.netDevices.b.name: also the name of linux.netDevices.a",
    );
    check(r#"linux.netDevices = {"a":{"name":"b"},"b":{}}"#, "linux.netDevices.b.name: also the name");
    check(
        "linux.netDevices = {\"a\":{}}\nlinux.namespaces = []",
        "linux.netDevices: needs a network namespace",
    );
}

#[test]
fn restricted_paths_are_of_the_root_and_private() {
    for name in ["maskedPaths", "readonlyPaths"] {
        check(&format!(r#"linux.{name} = ["/proc/kcore","/../x"]"#), "");
        check(&format!(r#"linux.{name} = ["/a","b",""]"#), &format!("linux.{name}[2]: is empty"));
        check(&format!(r#"linux.{name} = ["/a","b"]"#), &format!("warning linux.{name}[1]: relative to /"));
        check(&format!(r#"linux.{name} = ["/a\u0000"]"#), &format!("linux.{name}[0]: NUL"));
        check(
            &format!("linux.{name} = [\"/a\"]\nlinux.namespaces = []"),
            &format!("linux.{name}: needs a mount namespace"),
        );
    }
}

#[test]
fn devices_are_nodes_with_numbers() {
    let one = |rest: &str| format!("linux.devices = [{{\"path\":\"/dev/x\",{rest}}}]");
    for typ in ["c", "b", "u"] {
        check(
            &one(&format!(r#""type":{typ:?},"major":4095,"minor":1048575,"fileMode":438,"uid":0,"gid":5"#)),
            "",
        );
        check(&one(&format!(r#""type":{typ:?},"major":0,"minor":0"#)), "");
        check(
            &one(&format!(r#""type":{typ:?}"#)),
            "linux.devices[0].major: missing\nlinux.devices[0].minor: missing",
        );
        check(
            &one(&format!(r#""type":{typ:?},"major":4096,"minor":-1"#)),
            "linux.devices[0].major: 4096\nlinux.devices[0].minor: -1",
        );
    }
    check(&one(r#""type":"p""#), "");
    check(&one(r#""type":"a","major":1,"minor":1"#), "linux.devices[0].type: one of c, b, u, p");
    check(&one(r#""type":"x","major":1,"minor":1"#), "linux.devices[0].type: unknown value");
    check(
        &one(r#""type":"p","uid":4294967295,"gid":4294967295"#),
        "linux.devices[0].uid: no id\nlinux.devices[0].gid: no id",
    );
    // Docker sends the type's bits, older ones Go's.
    check(&one(r#""type":"c","major":1,"minor":3,"fileMode":8630"#), "");
    check(&one(r#""type":"c","major":1,"minor":3,"fileMode":69206454"#), "");
    check(r#"linux.devices = [{"path":"dev/x","type":"p"}]"#, "linux.devices[0].path: not an absolute path");
    check(r#"linux.devices = [{"type":"p"}]"#, "linux.devices[0].path: is empty");
    let node = |major: u32| format!(r#"{{"path":"/dev/x","type":"c","major":{major},"minor":1}}"#);
    check(
        &format!("linux.devices = [{},{}]", node(1), node(1)),
        "warning linux.devices[1].path: already in linux.devices[0]",
    );
    check(
        &format!("linux.devices = [{},{}]", node(1), node(2)),
        "linux.devices[1].path: already in linux.devices[0]",
    );
}

#[test]
fn propagation_labels_and_cgroup_paths() {
    for value in
        ["", "private", "shared", "slave", "unbindable", "rprivate", "rshared", "rslave", "runbindable"]
    {
        check(&format!("linux.rootfsPropagation = {value:?}"), "");
    }
    check(
        r#"linux.rootfsPropagation = "public""#,
        "linux.rootfsPropagation: \"public\" is not one of private",
    );
    for good in ["/a/b", "a/b", "system.slice:cri:abc", "/a..b", "", "/a/../b"] {
        check(&format!("linux.cgroupsPath = {good:?}"), "");
    }
    check(r#"linux.cgroupsPath = "/a\u0000""#, "linux.cgroupsPath: NUL");
    check(r#"linux.mountLabel = "a\u0000""#, "linux.mountLabel: NUL");
}

/// A seccomp profile that answers with an errno, and `rest`.
fn profile(rest: &str) -> String {
    format!("linux.seccomp = {{\"defaultAction\":\"SCMP_ACT_ERRNO\",{rest}}}")
}

/// A profile with one rule for read.
fn rule(rest: &str) -> String {
    profile(&format!("\"syscalls\":[{{\"names\":[\"read\"],{rest}}}]"))
}

#[test]
fn every_seccomp_name_of_the_spec_is_known() {
    let archs = "X86 X86_64 X32 ARM AARCH64 MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE \
                 S390 S390X PARISC PARISC64 RISCV64 LOONGARCH64 M68K SH SHEB";
    for arch in archs.split_whitespace() {
        check(&profile(&format!("\"architectures\":[\"SCMP_ARCH_{arch}\"]")), "");
    }
    for flag in ["TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV"] {
        check(&profile(&format!("\"flags\":[\"SECCOMP_FILTER_FLAG_{flag}\"]")), "");
    }
    for op in ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"] {
        let arg = format!(r#"{{"index":5,"value":18446744073709551615,"valueTwo":1,"op":"SCMP_CMP_{op}"}}"#);
        check(&rule(&format!(r#""action":"SCMP_ACT_TRACE","errnoRet":9,"args":[{arg}]"#)), "");
    }
    for action in ["KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "LOG", "ALLOW"] {
        check(&rule(&format!("\"action\":\"SCMP_ACT_{action}\"")), "");
    }
    let at = "linux.seccomp";
    check(
        &profile(r#""architectures":["SCMP_ARCH_X86","SCMP_ARCH_VAX"]"#),
        &format!("{at}.architectures[1]: unknown"),
    );
    check(&profile(r#""flags":["SECCOMP_FILTER_FLAG_X"]"#), &format!("{at}.flags[0]: unknown value"));
    check(&rule(r#""action":"SCMP_ACT_X""#), &format!("{at}.syscalls[0].action: unknown value"));
}

#[test]
fn seccomp_profiles_are_possible() {
    let at = "linux.seccomp";
    check(&profile(r#""defaultErrnoRet":38"#), "");
    for action in ["KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "LOG", "ALLOW"] {
        let errno = format!("\"action\":\"SCMP_ACT_{action}\",\"errnoRet\":1");
        check(&rule(&errno), &format!("{at}.syscalls[0].errnoRet: no errno"));
        let default = format!(r#"{at} = {{"defaultAction":"SCMP_ACT_{action}","defaultErrnoRet":1}}"#);
        check(&default, &format!("{at}.defaultErrnoRet: no errno"));
    }
    check(
        &rule(r#""action":"SCMP_ACT_LOG","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]"#),
        &format!("{at}.syscalls[0].args[0].index: 6;"),
    );
    let rules = |rules: &str| profile(&format!("\"syscalls\":[{rules}]"));
    check(&rules(r#"{"names":[],"action":"SCMP_ACT_LOG"}"#), &format!("{at}.syscalls[0].names: is empty"));
    check(&rules(r#"{"action":"SCMP_ACT_LOG"}"#), &format!("{at}.syscalls[0].names: missing"));
    check(&rules(r#"{"names":["a"]}"#), &format!("{at}.syscalls[0].action: missing"));
    check("linux.seccomp = {}", "linux.seccomp.defaultAction: missing");
    let notify = rule(r#""action":"SCMP_ACT_NOTIFY""#);
    check(&notify, "linux.seccomp.listenerPath: missing");
    check(&(notify.clone() + "\nlinux.seccomp.listenerPath = \"/run/x\""), "");
    check(&(notify + "\nlinux.seccomp.listenerPath = \"x\""), "linux.seccomp.listenerPath: not an abs");
    let unused = profile(r#""listenerPath":"/run/x","listenerMetadata":"m""#);
    check(&unused, "warning linux.seccomp.listenerPath: ignored");
}

#[test]
fn resctrl_groups_are_directories() {
    for good in ["a", "a.b", "/", "a..b"] {
        check(&format!("linux.intelRdt = {{\"closID\":{good:?}}}"), "");
    }
    for bad in ["", ".", "..", "a/b", "/a", "a\n"] {
        check(&format!("linux.intelRdt = {{\"closID\":{bad:?}}}"), "linux.intelRdt.closID: cannot name");
    }
    check(
        r#"linux.intelRdt = {"l3CacheSchema":"L3:0=f;1=f","memBwSchema":"MB:0=10","enableMonitoring":true,"schemata":["L2:0=f"]}"#,
        "",
    );
    check(r#"linux.intelRdt = {"schemata":["a","b\nc"]}"#, "linux.intelRdt.schemata[1]: not one line");
    check(
        r#"linux.intelRdt = {"enableCMT":true,"enableMBM":true}"#,
        "warning linux.intelRdt.enableCMT: ignored\nwarning linux.intelRdt.enableMBM: ignored",
    );
    check(r#"linux.intelRdt = {"enableCMT":false}"#, "");
    check(
        r#"linux.intelRdt = {"l3CacheSchema":"\u0000","memBwSchema":"\u0000"}"#,
        "linux.intelRdt.l3CacheSchema: NUL\nlinux.intelRdt.memBwSchema: NUL",
    );
}

#[test]
fn memory_policies_follow_set_mempolicy() {
    let policy = |mode: &str, rest: &str| format!("linux.memoryPolicy = {{\"mode\":\"MPOL_{mode}\"{rest}}}");
    for mode in ["BIND", "INTERLEAVE", "WEIGHTED_INTERLEAVE", "PREFERRED_MANY"] {
        check(&policy(mode, r#","nodes":"0-1,3","flags":["MPOL_F_STATIC_NODES"]"#), "");
        check(&policy(mode, ""), "linux.memoryPolicy.nodes: missing");
    }
    for mode in ["DEFAULT", "LOCAL"] {
        check(&policy(mode, ""), "");
        check(&policy(mode, r#","nodes":"0""#), "linux.memoryPolicy.nodes: takes no nodes");
    }
    check(&policy("PREFERRED", ""), "");
    check(&policy("PREFERRED", r#","nodes":"0""#), "");
    check(&policy("BIND", r#","nodes":"x""#), "linux.memoryPolicy.nodes: not a number");
    check(&policy("BIND", r#","nodes":"0","flags":["MPOL_F_NUMA_BALANCING"]"#), "");
    check(
        &policy("INTERLEAVE", r#","nodes":"0","flags":["MPOL_F_NUMA_BALANCING"]"#),
        "linux.memoryPolicy.flags: needs MPOL_BIND",
    );
    check(
        &policy("BIND", r#","nodes":"0","flags":["MPOL_F_STATIC_NODES","MPOL_F_RELATIVE_NODES"]"#),
        "linux.memoryPolicy.flags: exclude",
    );
    check(
        &policy("PREFERRED", r#","flags":["MPOL_F_RELATIVE_NODES"]"#),
        "linux.memoryPolicy.flags: need nodes",
    );
    check(&policy("X", ""), "linux.memoryPolicy.mode: unknown value");
    check("linux.memoryPolicy = {}", "linux.memoryPolicy.mode: missing");
}

#[test]
fn personality_has_a_domain_and_no_flags() {
    for domain in ["LINUX", "LINUX32"] {
        check(&format!("linux.personality = {{\"domain\":{domain:?},\"flags\":[]}}"), "");
    }
    check(
        r#"linux.personality = {"domain":"LINUX","flags":["ADDR_NO_RANDOMIZE"]}"#,
        "linux.personality.flags[0]: not supported",
    );
    check(r#"linux.personality = {"domain":"BSD"}"#, "linux.personality.domain: unknown value \"BSD\"");
    check("linux.personality = {}", "linux.personality.domain: missing");
}
