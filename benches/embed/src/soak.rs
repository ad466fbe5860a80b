use crate::{Cycle, Done};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Prints progress each 10 seconds, since threads that hang do not come to the end.
pub fn soak(bundle: &str, cycle: Cycle, rest: &[&str]) -> Done {
    let seconds = rest.first().map_or(Ok(300), |seconds| seconds.parse())?;
    let threads: u32 = rest.get(1).map_or(Ok(64), |threads| threads.parse())?;
    let end = Instant::now() + Duration::from_secs(seconds);
    let (stop, good) = (AtomicBool::new(false), AtomicU64::new(0));
    let failures: Mutex<BTreeMap<String, u64>> = Mutex::default();
    let last: Vec<Mutex<Instant>> = (0..threads).map(|_| Mutex::new(Instant::now())).collect();
    let print = || {
        let idle = |since: &Mutex<Instant>| since.lock().unwrap().elapsed() > Duration::from_secs(20);
        let stuck = last.iter().filter(|since| idle(since)).count();
        println!("{} good cycles, {stuck} threads without progress for 20 s", good.load(Relaxed));
        for (what, count) in failures.lock().unwrap().iter() {
            println!("  {count} x {what}");
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                if nix::sys::wait::waitpid(None, None).is_err() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                let _ = std::process::Command::new("/bin/true").status();
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        scope.spawn(|| {
            while Instant::now() < end + Duration::from_secs(30) && !stop.load(Relaxed) {
                std::thread::sleep(Duration::from_secs(10));
                print();
            }
            if !stop.load(Relaxed) {
                println!("the threads do not end");
                std::process::exit(1);
            }
        });
        let workers: Vec<_> = last
            .iter()
            .enumerate()
            .map(|(thread, last)| {
                let (good, failures) = (&good, &failures);
                scope.spawn(move || {
                    for round in 0u64.. {
                        if Instant::now() >= end {
                            break;
                        }
                        // What other threads allocate while a process is cloned must not stop it.
                        let memory: Vec<String> = (0..100).map(|number| "x".repeat(number * 7)).collect();
                        match cycle(bundle, &format!("soak-{}-{thread}-{round}", std::process::id())) {
                            Ok(()) => drop(good.fetch_add(1, Relaxed)),
                            Err(error) => {
                                let what = error.to_string().replace(|c: char| c.is_ascii_digit(), "");
                                *failures.lock().unwrap().entry(what).or_default() += 1;
                            }
                        }
                        drop(memory);
                        *last.lock().unwrap() = Instant::now();
                    }
                })
            })
            .collect();
        for worker in workers {
            let _ = worker.join();
        }
        stop.store(true, Relaxed);
    });
    print();
    Ok(())
}
