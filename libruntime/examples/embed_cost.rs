//! What creating a container costs in a process with much memory: `embed_cost BUNDLE [GIB] [ROUNDS]`.
//!
//! Prints the medians with and without the memory, measured in turns, and their ratio. A runtime
//! that forks the caller copies its page tables: 16 ms for each GiB.

use libruntime::Runtime;
use std::time::{Duration, Instant};

const CREATES: u32 = 20;

type Done<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Done {
    let mut args = std::env::args().skip(1);
    let bundle = args.next().ok_or("usage: embed_cost BUNDLE [GIB] [ROUNDS]")?;
    let gib: usize = args.next().map_or(Ok(8), |gib| gib.parse())?;
    let rounds: u32 = args.next().map_or(Ok(5), |rounds| rounds.parse())?;
    let (mut small, mut large) = (Vec::new(), Vec::new());
    measure(&bundle, &mut Vec::new())?;
    for _ in 0..rounds {
        measure(&bundle, &mut small)?;
        // Written, so that it is resident.
        let memory = std::hint::black_box(vec![1u8; gib << 30]);
        measure(&bundle, &mut large)?;
        drop(memory);
    }
    let (small, large) = (median(small), median(large));
    let ratio = large.as_secs_f64() / small.as_secs_f64();
    println!("create: {small:?} in a small process, {large:?} with {gib} GiB resident, ratio {ratio:.2}");
    Ok(())
}

fn measure(bundle: &str, into: &mut Vec<Duration>) -> Done {
    let runtime = Runtime::new("/run/libruntime-example");
    for number in 0..CREATES {
        let id = format!("cost-{}-{number}", std::process::id());
        let begin = Instant::now();
        let container = runtime.container(id).bundle(bundle).create()?;
        into.push(begin.elapsed());
        container.delete_force()?;
    }
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
