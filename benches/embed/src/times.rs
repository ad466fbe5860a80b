use crate::{Cycle, Done};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

const NAMES: [&str; 3] = ["libruntime", "libcontainer", "crun"];
const CYCLES: &str = "5";

/// Each round, each of them in a process of its own for some cycles.
pub fn compare(bundle: &str, rest: &[&str]) -> Done {
    let busy = rest.contains(&"--busy");
    let rounds = rest.iter().find(|word| !word.starts_with("--")).map_or(Ok(10), |rounds| rounds.parse())?;
    let stop = AtomicBool::new(false);
    let mut times: [Vec<u64>; 3] = Default::default();
    std::thread::scope(|scope| -> Done {
        for _ in 0..if busy { 2 } else { 0 } {
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    std::hint::spin_loop()
                }
            });
        }
        let measured = (0..rounds).try_for_each(|_: u32| {
            NAMES.iter().zip(&mut times).try_for_each(|(name, times)| one(bundle, name, times))
        });
        stop.store(true, Relaxed);
        measured
    })?;
    let medians = times.map(|mut times| {
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    });
    for (name, median) in NAMES.iter().zip(medians) {
        let ratio = medians[0] as f64 / median.max(1) as f64;
        println!("{name}: median {median} us; libruntime takes {ratio:.2} times that");
    }
    Ok(())
}

fn one(bundle: &str, name: &str, times: &mut Vec<u64>) -> Done {
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.args(["cycles", bundle, name, CYCLES]).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("{name}: {}", output.status).into());
    }
    let text = String::from_utf8(output.stdout)?;
    for line in text.lines() {
        times.push(line.parse()?);
    }
    Ok(())
}

/// Prints microseconds, a line for each.
pub fn cycles(bundle: &str, cycle: Cycle, count: u32) -> Done {
    for number in 0..count {
        let begin = Instant::now();
        cycle(bundle, &format!("embed-{}-{number}", std::process::id()))?;
        println!("{}", begin.elapsed().as_micros());
    }
    Ok(())
}

/// The same by a program that is executed for each verb.
pub fn crun(bundle: &str, id: &str) -> Done {
    let run = |args: &[&str]| -> Done {
        let mut command = Command::new("crun");
        command.args(["--root", "/run/embed-crun"]).args(args).stdin(Stdio::null()).stdout(Stdio::null());
        match command.status()?.success() {
            true => Ok(()),
            false => Err(format!("crun {args:?} failed").into()),
        }
    };
    run(&["run", "--bundle", bundle, id])
}
