//! Containers in the process of their user: this library beside libcontainer 0.7, and a `crun` that is executed.
//!
//! * `embed times BUNDLE [ROUNDS] [--busy]`: medians of create, start, wait and delete, measured in turns, and ratios.
//!   With `--busy`, two other threads compute meanwhile. The bundle's program ends at once.
//! * `embed soak BUNDLE libruntime|libcontainer [SECONDS] [THREADS]`: the same cycle from many threads that allocate,
//!   beside one that reaps every child and one that starts programs; what failed, and whether all threads go on.

mod ours;
mod soak;
mod theirs;
mod times;

type Done<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Creates, starts, waits for and deletes a container with this id.
type Cycle = fn(bundle: &str, id: &str) -> Done;

const USAGE: &str = "usage: embed times BUNDLE [ROUNDS] [--busy]\n       embed soak BUNDLE libruntime|libcontainer [SECONDS] [THREADS]";

fn cycle_of(name: &str, bundle: &str) -> Done<Cycle> {
    match name {
        "libruntime" => Ok(ours::cycle),
        "libcontainer" => theirs::check(bundle).map(|()| theirs::cycle as Cycle),
        "crun" => Ok(times::crun),
        _ => Err(USAGE.into()),
    }
}

fn main() -> Done {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["times", bundle, ref rest @ ..] => times::compare(bundle, rest),
        // What `times` starts.
        ["cycles", bundle, name, count] => times::cycles(bundle, cycle_of(name, bundle)?, count.parse()?),
        ["soak", bundle, name, ref rest @ ..] => soak::soak(bundle, cycle_of(name, bundle)?, rest),
        _ => Err(USAGE.into()),
    }
}
