//! Containers that are created ahead, and told what to run when there is something to do: `warm_pool BUNDLE`.

use libruntime::{Container, Program, Runtime, Stdio};
use std::io::Read;

const AHEAD: usize = 4;

/// All is set up in it; only its program is missing.
fn create_ahead(runtime: &Runtime, bundle: &str, number: usize) -> libruntime::Result<Container> {
    let new = runtime.container(format!("warm-{}-{number}", std::process::id())).bundle(bundle);
    new.stdin(Stdio::null()).stdout(Stdio::piped()).create()
}

fn run(container: &Container, program: &Program) -> Result<String, Box<dyn std::error::Error>> {
    container.start_program(program)?;
    let mut said = String::new();
    container.take_stdout().ok_or("no pipe")?.read_to_string(&mut said)?;
    let status = container.wait()?;
    container.delete()?;
    Ok(format!("{status}: {said}"))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bundle = std::env::args().nth(1).ok_or("usage: warm_pool BUNDLE")?;
    let runtime = Runtime::new("/run/libruntime-example");
    let create = |number| create_ahead(&runtime, &bundle, number);
    let mut pool = (0..AHEAD).map(create).collect::<Result<std::collections::VecDeque<_>, _>>()?;
    for number in 1..=8 {
        let job = Program::new(["sh", "-c", "echo job $JOB in $PWD; exit $JOB"]);
        let job = job.env("JOB", &number.to_string()).current_dir("/bin");
        let container = pool.pop_front().expect("one is added for each that is taken");
        print!("{}", run(&container, &job)?);
        pool.push_back(create(AHEAD + number)?);
    }
    pool.iter().try_for_each(|container| container.delete_force().map(drop))?;
    Ok(())
}
