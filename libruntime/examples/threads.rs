//! Containers from 8 threads of one process, beside one that reaps every child: `threads BUNDLE [ROUNDS]`.

use libruntime::{Runtime, Stdio};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bundle = std::env::args().nth(1).ok_or("usage: threads BUNDLE [ROUNDS]")?;
    let rounds: u32 = std::env::args().nth(2).map_or(Ok(5), |rounds| rounds.parse())?;
    // An init, or a shim, does so; exits are known all the same since Linux 6.15.
    std::thread::spawn(|| {
        loop {
            if nix::sys::wait::waitpid(None, None).is_err() {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
    });
    let runtime = Runtime::new("/run/libruntime-example");
    let work = |thread: u32| -> libruntime::Result<()> {
        for round in 0..rounds {
            let id = format!("threads-{}-{thread}-{round}", std::process::id());
            let container = runtime.container(id).bundle(&bundle).stdin(Stdio::null()).run()?;
            assert!(container.wait()?.success());
            container.delete()?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|thread| scope.spawn(move || work(thread))).collect();
        all.into_iter().try_for_each(|thread| thread.join().expect("no thread panics"))
    })?;
    println!("{} containers", 8 * rounds);
    Ok(())
}
