//! Containers from many threads for some time, beside a thread that reaps every child and one that
//! starts programs: `soak BUNDLE [SECONDS] [THREADS]`. The bundle's program runs until it is killed.
//!
//! Each cycle creates and starts a container, executes a process, ends both and deletes it. Every exit has to
//! be known, and afterwards the process has the descriptors, directory, mask and children it had before.

use libruntime::{Container, ExitStatus, Runtime, Signal, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

type Done<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Done {
    let mut args = std::env::args().skip(1);
    let bundle = args.next().ok_or("usage: soak BUNDLE [SECONDS] [THREADS]")?;
    let seconds: u64 = args.next().map_or(Ok(2), |seconds| seconds.parse())?;
    let threads: u32 = args.next().map_or(Ok(64), |threads| threads.parse())?;
    let runtime = Runtime::new("/run/libruntime-example");
    // What is made once for a process: the sealed stage, and a signal handler of glibc's threads.
    std::thread::spawn(|| ()).join().expect("no thread panics");
    cycle(&runtime, &bundle, &format!("soak-{}", std::process::id()))?;
    let before = Host::now()?;
    let (stop, cycles) = (AtomicBool::new(false), AtomicU64::new(0));
    let end = Instant::now() + Duration::from_secs(seconds);
    let longest = std::thread::scope(|scope| -> Done<Duration> {
        scope.spawn(|| reap_all(&stop));
        scope.spawn(|| start_programs(&stop));
        let all: Vec<_> = (0..threads)
            .map(|thread| {
                let (runtime, bundle, cycles) = (&runtime, &bundle, &cycles);
                scope.spawn(move || work(runtime, bundle, thread, end, cycles))
            })
            .collect();
        let done: Vec<_> = all.into_iter().map(|thread| thread.join()).collect();
        stop.store(true, Relaxed);
        let longest =
            done.into_iter().map(|done| done.expect("no thread panics")).collect::<Done<Vec<_>>>()?;
        Ok(longest.into_iter().max().unwrap_or_default())
    })?;
    while nix::sys::wait::waitpid(None, None).is_ok() {}
    let after = Host::now()?;
    assert_eq!(before.unchanged, after.unchanged);
    println!(
        "{} cycles on {threads} threads, none lost; the longest took {longest:.0?}; resident {} -> {} KiB",
        cycles.into_inner(),
        before.resident,
        after.resident
    );
    Ok(())
}

/// The longest cycle.
fn work(runtime: &Runtime, bundle: &str, thread: u32, end: Instant, cycles: &AtomicU64) -> Done<Duration> {
    let mut longest = Duration::ZERO;
    for round in 0u64.. {
        let begin = Instant::now();
        if begin >= end {
            break;
        }
        // What other threads allocate while a process is cloned must not stop it.
        let memory: Vec<String> = (0..100).map(|number| "x".repeat(number * 7)).collect();
        cycle(runtime, bundle, &format!("soak-{}-{thread}-{round}", std::process::id()))?;
        drop(memory);
        cycles.fetch_add(1, Relaxed);
        longest = longest.max(begin.elapsed());
    }
    Ok(longest)
}

fn cycle(runtime: &Runtime, bundle: &str, id: &str) -> libruntime::Result<()> {
    let [stdin, stdout, stderr] = std::array::from_fn(|_| Stdio::null());
    let container = runtime.container(id).bundle(bundle).stdin(stdin).stdout(stdout).stderr(stderr).run()?;
    // A container that a failed cycle left running would never be reaped, and `reap_all` would wait for it.
    use_once(&container).inspect_err(|_| drop(container.delete_force()))
}

fn use_once(container: &Container) -> libruntime::Result<()> {
    let exec = container.exec(["sh", "-c", "exit 7"]).stdin(Stdio::null()).spawn()?;
    assert_eq!(exec.wait()?, ExitStatus::Code(7));
    container.kill(Signal::KILL)?;
    assert_eq!(container.wait()?, ExitStatus::Signal(9));
    container.delete()?;
    Ok(())
}

/// As an init or a shim does: exits are known all the same since Linux 6.15.
fn reap_all(stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        if nix::sys::wait::waitpid(None, None).is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn start_programs(stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        // Reaped by the other thread, most times.
        let _ = std::process::Command::new("/bin/true").status();
        std::thread::sleep(Duration::from_millis(5));
    }
}

struct Host {
    unchanged: String,
    /// KiB
    resident: u64,
}

impl Host {
    fn now() -> Done<Self> {
        // A thread that was joined is in the list for a moment still.
        while std::fs::read_dir("/proc/self/task")?.count() > 1 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let status = std::fs::read_to_string("/proc/self/status")?;
        let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        let children = std::fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id()))?;
        let descriptors = std::fs::read_dir("/proc/self/fd")?.count();
        let directory = std::env::current_dir()?;
        let unchanged = format!(
            "{descriptors} descriptors, {directory:?}, children {children:?}, {}",
            ["Umask", "Threads", "SigBlk", "SigIgn", "SigCgt", "CapEff", "NoNewPrivs", "Seccomp"]
                .map(line)
                .join(", ")
        );
        let resident = line("VmRSS").split_whitespace().nth(1).unwrap_or_default().parse()?;
        Ok(Self { unchanged, resident })
    }
}
