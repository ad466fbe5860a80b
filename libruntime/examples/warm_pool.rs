//! Containers that are created ahead, and told what to run when there is something to do: `warm_pool BUNDLE`.

use libruntime::{Container, Program, Runtime, Stdio};
use std::io::Read;

const AHEAD: usize = 4;

struct Pool {
    runtime: Runtime,
    bundle: String,
    ready: Vec<Container>,
    made: usize,
}

impl Pool {
    /// All is set up in each of these; only their programs are missing.
    fn fill(&mut self) -> libruntime::Result<()> {
        while self.ready.len() < AHEAD {
            self.made += 1;
            let id = format!("warm-{}-{}", std::process::id(), self.made);
            let new = self.runtime.container(id).bundle(&self.bundle);
            self.ready.push(new.stdin(Stdio::null()).stdout(Stdio::piped()).create()?);
        }
        Ok(())
    }

    fn run(&mut self, program: &Program) -> Result<String, Box<dyn std::error::Error>> {
        self.fill()?;
        let container = self.ready.remove(0);
        container.start_program(program)?;
        let mut said = String::new();
        container.take_stdout().ok_or("no pipe")?.read_to_string(&mut said)?;
        let status = container.wait()?;
        container.delete()?;
        Ok(format!("{status}: {said}"))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bundle = std::env::args().nth(1).ok_or("usage: warm_pool BUNDLE")?;
    let runtime = Runtime::new("/run/libruntime-example");
    let mut pool = Pool { runtime, bundle, ready: Vec::new(), made: 0 };
    for number in 1..=8 {
        let job = Program::new(["sh", "-c", "echo job $JOB in $PWD; exit $JOB"]);
        let job = job.env("JOB", &number.to_string()).current_dir("/bin");
        print!("{}", pool.run(&job)?);
    }
    pool.ready.drain(..).try_for_each(|container| container.delete_force().map(drop))?;
    Ok(())
}
