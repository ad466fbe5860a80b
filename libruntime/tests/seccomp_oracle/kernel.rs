//! The kernel as the last oracle: loads filters in a forked child and looks at what happens to its calls.
//!
//! The child makes system calls only, because the test process has other threads.

use super::interpreter::{Call, run};
use super::{X86_64, profiles};
use libruntime::seccomp::{Filter, Machine, compile};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction as Action, LinuxSyscall, LinuxSyscallBuilder};
use serde_json::{Value, json};

const NO_FILTER: i32 = 100;

/// How the child ended: what `body` returned, or the signal.
type Ended = Result<i32, i32>;

/// Runs `body` in a child with the filter; `body` gets what seccomp(2) returned, the listener for instance.
fn with_filter(filter: &Filter, body: impl FnOnce(i32) -> i32) -> Ended {
    let program = libc::sock_fprog {
        len: (filter.program.len() / 8) as u16,
        filter: filter.program.as_ptr() as *mut libc::sock_filter,
    };
    // SAFETY: between fork and _exit the child only makes system calls, as `body` promises to; the program
    // outlives the call that reads it.
    unsafe {
        let child = libc::fork();
        assert!(child >= 0);
        if child == 0 {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            let loaded =
                libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, filter.flags, &program);
            libc::_exit(if loaded < 0 { NO_FILTER } else { body(loaded as i32) });
        }
        wait(child)
    }
}

fn wait(child: i32) -> Ended {
    let mut status = 0;
    // SAFETY: the child is ours, and the status is a place to write to.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    if libc::WIFSIGNALED(status) { Err(libc::WTERMSIG(status)) } else { Ok(libc::WEXITSTATUS(status)) }
}

/// A call that, where the filter lets it through, does no harm with these arguments; the result or -errno.
fn call(number: i64, arguments: [u64; 3]) -> i64 {
    let [a, b, c] = arguments;
    // SAFETY: the callers name calls that take no pointers, or that their filter refuses.
    let result = unsafe { libc::syscall(number, a, b, c) };
    // SAFETY: errno is the thread's own.
    if result == -1 { -i64::from(unsafe { *libc::__errno_location() }) } else { result }
}

fn filter(profile: Value) -> Filter {
    let profile: LinuxSeccomp = serde_json::from_value(profile).unwrap();
    compile(&profile, &mut Vec::new()).unwrap()
}

/// Everything is allowed but `getppid`, which has the action.
fn getppid(action: &str) -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["getppid"], "action": action}],
    })
}

#[test]
fn the_kernel_does_what_each_action_says() {
    let ends =
        |action| with_filter(&filter(getppid(action)), |_| (call(libc::SYS_getppid, [0; 3]) > 0) as i32);
    assert_eq!(ends("SCMP_ACT_ALLOW"), Ok(1));
    assert_eq!(ends("SCMP_ACT_LOG"), Ok(1));
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"] {
        assert_eq!(ends(action), Err(libc::SIGSYS), "{action}");
    }
    let errno = |action| with_filter(&filter(getppid(action)), |_| -call(libc::SYS_getppid, [0; 3]) as i32);
    assert_eq!(errno("SCMP_ACT_ERRNO"), Ok(libc::EPERM));
    assert_eq!(errno("SCMP_ACT_TRACE"), Ok(libc::ENOSYS), "there is no tracer");
}

#[test]
fn the_kernel_compares_all_bits_of_an_argument() {
    let mut profile = getppid("SCMP_ACT_ERRNO");
    profile["syscalls"][0]["args"] = json!([{"index": 2, "value": 0x5_0000_0007_u64, "op": "SCMP_CMP_GE"}]);
    let filter = filter(profile);
    for (argument, refused) in [
        (0x5_0000_0007, true),
        (0x6_0000_0000, true),
        (u64::MAX, true),
        (0x5_0000_0006, false),
        (0x4_ffff_ffff, false),
        (7, false),
    ] {
        let ended = with_filter(&filter, |_| (call(libc::SYS_getppid, [0, 0, argument]) == -1) as i32);
        assert_eq!(ended, Ok(refused as i32), "{argument:#x}");
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_kernel_kills_entries_that_are_not_listed() {
    let with = |architectures: Value| {
        let mut profile = getppid("SCMP_ACT_ERRNO");
        profile["architectures"] = architectures;
        filter(profile)
    };
    let x32 = with_filter(&with(json!([])), |_| call(0x4000_0000 + libc::SYS_getpid, [0; 3]) as i32);
    assert_eq!(x32, Err(libc::SIGSYS));

    let getppid_of_x86 = |_: i32| {
        let result: i32;
        // SAFETY: the 32-bit entry with a call that takes no argument.
        unsafe { std::arch::asm!("int 0x80", inlateout("eax") 64 => result) };
        (result < 0) as i32
    };
    let all = Filter {
        program: 0x7fff_0000_0000_0006_u64.to_ne_bytes().into(),
        flags: 0,
        notify: None,
        lets_wait: true,
        lets_clone: true,
        lets_execute: true,
    };
    if with_filter(&all, getppid_of_x86) == Err(libc::SIGSEGV) {
        println!("this kernel has no 32-bit entry");
        return;
    }
    assert_eq!(with_filter(&all, getppid_of_x86), Ok(0));
    assert_eq!(with_filter(&with(json!([])), getppid_of_x86), Err(libc::SIGSYS));
    assert_eq!(with_filter(&with(json!(["SCMP_ARCH_X86"])), getppid_of_x86), Ok(1));
}

#[test]
fn the_kernel_takes_all_flags() {
    let all = ["LOG", "TSYNC", "SPEC_ALLOW", "WAIT_KILLABLE_RECV"]
        .map(|flag| format!("SECCOMP_FILTER_FLAG_{flag}"));
    for action in ["SCMP_ACT_ERRNO", "SCMP_ACT_NOTIFY"] {
        for subset in 0..16 {
            let mut profile = getppid(action);
            profile["flags"] =
                all.iter().enumerate().filter(|f| subset & 1 << f.0 != 0).map(|f| f.1.as_str()).collect();
            profile["listenerPath"] = "/run/agent.sock".into();
            let filter = filter(profile);
            assert_eq!(with_filter(&filter, |_| 0), Ok(0), "{action} {:#x}", filter.flags);
        }
    }
}

#[test]
fn the_kernel_asks_the_listener() {
    let mut profile = getppid("SCMP_ACT_NOTIFY");
    profile["listenerPath"] = "/run/agent.sock".into();
    let ended = with_filter(&filter(profile), |listener| {
        // SAFETY: system calls only; the structures are zero, as the kernel demands, and of its sizes.
        unsafe {
            let asker = libc::fork();
            if asker == 0 {
                libc::_exit((call(libc::SYS_getppid, [0; 3]) == 4242) as i32);
            }
            let mut asked: libc::seccomp_notif = std::mem::zeroed();
            let mut answer: libc::seccomp_notif_resp = std::mem::zeroed();
            let received = libc::ioctl(listener, 0xc050_2100, &mut asked);
            (answer.id, answer.val) = (asked.id, 4242);
            let sent = libc::ioctl(listener, 0xc018_2101, &answer);
            let right = asked.data.nr == libc::SYS_getppid as i32 && received == 0 && sent == 0;
            let mut status = 0;
            libc::waitpid(asker, &mut status, 0);
            if right && status == 1 << 8 { 0 } else { 1 }
        }
    });
    assert_eq!(ended, Ok(0));
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_kernel_runs_real_profiles_as_the_interpreter_does() {
    assert_eq!(Machine::NATIVE, Machine::X86_64);
    for (name, mut seccomp) in profiles() {
        refuse_what_is_allowed(&mut seccomp);
        let filter = compile(&seccomp, &mut Vec::new()).unwrap();
        // `uretprobe` and `uprobe`, which the kernel makes for itself, pass every filter; from elsewhere they
        // kill.
        let own = [libc::SYS_exit_group as u32, 335, 336];
        let numbers = (0..700).chain([0x3fff_ffff, u32::MAX]).filter(|number| !own.contains(number));
        let arguments = [[0; 3], [16, 0, 9], [40, 1, 9], [0x7e02_0000, 0, 0], [8, 0, 1], [0xffff_ffff, 0, 0]];
        let mut expected = Vec::new();
        for (number, [a, b, c]) in numbers.flat_map(|n| arguments.map(|arguments| (n, arguments))) {
            let (value, _) =
                run(&filter.program, &Call { number, audit: X86_64, arguments: [a, b, c, 0, 0, 0] });
            assert_eq!(value >> 16, 5, "{name} lets {number} through");
            expected.push((number, [a, b, c], -i64::from(value & 0xffff)));
        }
        let ended = with_filter(&filter, |_| {
            let wrong = expected
                .iter()
                .any(|&(number, arguments, errno)| call(i64::from(number as i32), arguments) != errno);
            wrong as i32
        });
        assert_eq!(ended, Ok(0), "{name}");
    }
}

/// Makes an error of every permission, so that each call can be tried, and leaves a way out.
fn refuse_what_is_allowed(seccomp: &mut LinuxSeccomp) {
    let mut rules: Vec<LinuxSyscall> = seccomp.syscalls().clone().unwrap();
    for rule in &mut rules {
        rule.set_names(rule.names().iter().filter(|name| *name != "exit_group").cloned().collect());
        if rule.action() == Action::ScmpActAllow {
            rule.set_action(Action::ScmpActErrno).set_errno_ret(Some(200));
        }
    }
    let exit = LinuxSyscallBuilder::default().names(["exit_group".to_owned()]).action(Action::ScmpActAllow);
    rules.push(exit.build().unwrap());
    if seccomp.default_action() == Action::ScmpActAllow {
        seccomp.set_default_action(Action::ScmpActErrno);
    }
    seccomp.set_syscalls(Some(rules));
}
