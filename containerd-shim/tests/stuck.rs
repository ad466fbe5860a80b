//! Processes that hold the kernel's locks on what they share with the shim: they copy to or from memory that never
//! comes (userfaultfd(2)). Needs root and busybox.

mod play;

use play::*;
use std::time::{Duration, Instant};

const HELPER: [&str; 3] = ["/helper", "--exact", "helper_that_is_stuck"];

/// A page whose first use waits for ever. `None`: without the capability, or on a kernel without it.
fn page_that_never_comes() -> Option<*mut libc::c_void> {
    const API: libc::Ioctl = 0xc018_aa3f_u32 as _;
    const REGISTER: libc::Ioctl = 0xc020_aa00_u32 as _;
    const SIZE: u64 = 65536;
    // SAFETY: numbers.
    let descriptor = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) } as i32;
    let mut api = [0xaa_u64, 0, 0];
    // SAFETY: the kernel reads and writes three words.
    if descriptor < 0 || unsafe { libc::ioctl(descriptor, API, &raw mut api) } != 0 {
        return None;
    }
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: new memory.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), SIZE as usize, access, flags, -1, 0) };
    // Pages that are missing.
    let mut range = [page.addr() as u64, SIZE, 1, 0];
    // SAFETY: the kernel reads and writes four words; nobody uses the memory but the kernel.
    (unsafe { libc::ioctl(descriptor, REGISTER, &raw mut range) } == 0).then_some(page)
}

/// Runs in a container, as a copy of this program.
#[test]
fn helper_that_is_stuck() {
    match std::env::var("STUCK").as_deref() {
        Ok("terminal") => {
            let page = page_that_never_comes().unwrap();
            // SAFETY: the kernel writes a size to the page.
            unsafe { libc::ioctl(0, libc::TIOCGWINSZ, page) };
        }
        Ok("pipe") => {
            // SAFETY: the child makes system calls alone.
            if unsafe { libc::fork() } == 0 {
                let page = page_that_never_comes().unwrap();
                // SAFETY: the kernel reads the page.
                unsafe { libc::write(1, page, 4096) };
            }
            std::thread::sleep(Duration::from_millis(300));
            // SAFETY: ends at once: it could say nothing on its standard output either.
            unsafe { libc::_exit(0) }
        }
        _ => {}
    }
}

fn may_use_userfaultfd(process: &mut serde_json::Value, what: &str) {
    let all = ["CAP_SYS_PTRACE"];
    process["capabilities"] = serde_json::json!({ "bounding": all, "permitted": all, "effective": all });
    process["env"] = serde_json::json!([format!("STUCK={what}"), "PATH=/bin"]);
}

macro_rules! prepared {
    ($name:expr, $command:expr, $edit:expr) => {
        match missing().or(page_that_never_comes().is_none().then_some("skipped: no userfaultfd")) {
            Some(reason) => return eprintln!("{reason}"),
            None => {
                let mut shim = Shim::prepare($name, $command, $edit);
                shim.copy_ourselves();
                shim.launch(&[], Fields::default());
                shim
            }
        }
    };
}

fn check_that_it_answers(shim: &Shim) {
    let begin = Instant::now();
    assert_eq!(shim.status(), 2);
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
}

/// A child of an exec writes to the pipe of its output, and outlives it.
#[test]
#[ignore = "needs root"]
fn a_pipe_that_a_process_has_locked_holds_up_nothing_else() {
    let shim = prepared!("stuck-pipe", &["busybox", "sleep", "1000"], &|_| ());
    let fifo = shim.fifo("out");
    shim.create("").unwrap();
    shim.of("Start", "").unwrap();
    let mut process = serde_json::json!({});
    may_use_userfaultfd(&mut process, "pipe");
    shim.exec_with(of("e").text(5, fifo.to_str().unwrap()), &HELPER, process).unwrap();
    shim.of("Start", "e").unwrap();
    shim.of("Wait", "e").unwrap();
    shim.of("Delete", "e").unwrap();
    check_that_it_answers(&shim);
    shim.remove();
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn a_terminal_that_a_process_has_locked_holds_up_nothing_else() {
    let shim = prepared!("stuck-terminal", &HELPER, &|config| {
        config["process"]["terminal"] = true.into();
        may_use_userfaultfd(&mut config["process"], "terminal");
    });
    let fifo = shim.fifo("out");
    shim.create_with("a", Fields::default().number(4, 1).text(6, fifo.to_str().unwrap())).unwrap();
    shim.of("Start", "").unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let resize = || shim.try_call("ResizePty", of("").number(3, 10).number(4, 10));
        let resizing = scope.spawn(resize);
        std::thread::sleep(Duration::from_millis(100));
        check_that_it_answers(&shim);
        assert!(!resizing.is_finished(), "the terminal is not locked");
        shim.call("Kill", of("").number(3, 9)).unwrap();
        resizing.join().unwrap().unwrap().unwrap();
    });
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    shim.of("Wait", "").unwrap();
    shim.of("Delete", "").unwrap();
    shim.end();
}
