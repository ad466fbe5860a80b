//! The contestants: which runtimes there are, and the command lines that make each of them do a work.
//!
//! Only what the OCI command line says is used, the same for all. `work.rs` runs and times these commands.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::kind::Kind;

const KNOWN: [&str; 4] = ["onggi", "runc", "crun", "youki"];

#[derive(Clone)]
pub struct Runtime {
    pub name: String,
    pub program: PathBuf,
    pub version: String,
}

/// The runtimes asked for, or all known ones that are installed. One that is asked for and missing is an error. Each has
/// a name of its own: two versions of one runtime would share their state otherwise.
pub fn find(asked: Option<&[String]>) -> Result<Vec<Runtime>, String> {
    let mut found: Vec<Runtime> = match asked {
        None => KNOWN.iter().filter_map(|name| Some(runtime(name, locate(name)?))).collect(),
        Some(asked) => asked
            .iter()
            .map(|name| match locate(name) {
                Some(program) => Ok(runtime(name, program)),
                None => Err(format!("{name}: not found; give a path, or ${}", name.to_uppercase())),
            })
            .collect::<Result<_, _>>()?,
    };
    for at in 1..found.len() {
        let taken = |name: &String| found[..at].iter().any(|one| &one.name == name);
        let name = &found[at].name;
        let numbered = (2..).map(|number| format!("{name}-{number}"));
        found[at].name =
            [name.clone()].into_iter().chain(numbered).find(|name| !taken(name)).expect("endless");
    }
    Ok(found)
}

/// A path as it is; a name from its variable (`$ONGGI`), beside this program, or in PATH.
pub fn locate(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| path.is_file());
    }
    if let Some(path) = env::var_os(name.to_uppercase()) {
        return Some(PathBuf::from(path)).filter(|path| path.is_file());
    }
    let beside = env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_path_buf));
    let beside = beside.filter(|_| name == "onggi");
    let dirs = env::var_os("PATH").unwrap_or_default();
    let mut places = beside.into_iter().chain(env::split_paths(&dirs)).map(|dir| dir.join(name));
    places.find(|path| path.is_file())
}

fn runtime(name: &str, program: PathBuf) -> Runtime {
    let short = Path::new(name).file_name().map_or(name.into(), |file| file.to_string_lossy());
    // A relative path would mean something else in another directory.
    let program = program.canonicalize().unwrap_or(program);
    let output = Command::new(&program).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let version = text.lines().next().unwrap_or("version unknown").trim().to_owned();
    Runtime { name: short.into_owned(), program, version }
}

/// One runtime's verbs, with its own state directory.
pub struct Verbs<'a> {
    pub program: &'a Path,
    pub state: &'a Path,
    pub kind: Kind,
}

impl Verbs<'_> {
    fn verb(&self, verb: &str) -> Command {
        let mut command = Command::new(self.program);
        command.args(self.kind.global()).arg("--root").arg(self.state).arg(verb);
        command
    }

    pub fn run(&self, bundle: &Path, id: &str) -> Command {
        let mut command = self.verb("run");
        command.args(self.kind.options()).arg("--bundle").arg(bundle).arg(id);
        command
    }

    pub fn create(&self, bundle: &Path, pid_file: &Path, id: &str) -> Command {
        let mut command = self.verb("create");
        command.args(self.kind.options()).arg("--bundle").arg(bundle);
        command.arg("--pid-file").arg(pid_file).arg(id);
        command
    }

    pub fn start(&self, id: &str) -> Command {
        let mut command = self.verb("start");
        command.arg(id);
        command
    }

    pub fn exec(&self, id: &str) -> Command {
        let mut command = self.verb("exec");
        command.args([id, "/bin/true"]);
        command
    }

    pub fn state(&self, id: &str) -> Command {
        let mut command = self.verb("state");
        command.arg(id);
        command
    }

    /// onggi's own.
    pub fn explain(&self, bundle: &Path) -> Command {
        let mut command = self.verb("explain");
        command.arg("--bundle").arg(bundle);
        command
    }

    pub fn delete(&self, id: &str, force: bool) -> Command {
        let mut command = self.verb("delete");
        command.args(force.then_some("--force")).arg(id);
        command
    }
}
