//! Containers from 64 threads of one process, beside one that reaps every child: `threads BUNDLE [ROUNDS]`.

use libruntime::{Runtime, Stdio};
use std::time::{Duration, Instant};

const THREADS: u32 = 64;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bundle = std::env::args().nth(1).ok_or("usage: threads BUNDLE [ROUNDS]")?;
    let rounds: u32 = std::env::args().nth(2).map_or(Ok(2), |rounds| rounds.parse())?;
    // An init, or a shim, does so; exits are known all the same since Linux 6.15.
    std::thread::spawn(|| {
        loop {
            if nix::sys::wait::waitpid(None, None).is_err() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    let runtime = Runtime::new("/run/libruntime-example");
    let work = |thread: u32| -> libruntime::Result<Duration> {
        let mut longest = Duration::ZERO;
        for round in 0..rounds {
            let begin = Instant::now();
            let id = format!("threads-{}-{thread}-{round}", std::process::id());
            let container = runtime.container(id).bundle(&bundle).stdin(Stdio::null()).run()?;
            assert!(container.wait()?.success());
            container.delete()?;
            longest = longest.max(begin.elapsed());
        }
        Ok(longest)
    };
    let longest = std::thread::scope(|scope| {
        let all: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || work(thread))).collect();
        let done = all.into_iter().map(|thread| thread.join().expect("no thread panics"));
        done.collect::<libruntime::Result<Vec<_>>>()
    })?;
    println!("{} containers, at most {:.0?} each", THREADS * rounds, longest.iter().max().expect("threads"));
    Ok(())
}
