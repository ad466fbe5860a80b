//! `ps`: the processes of a container: their ids, or their rows in the output of ps(1).

use super::list::{FORMAT, in_json};
use crate::cli::{Parsed, Verb};
use crate::failure::Failure;
use crate::global::Global;
use crate::output;
use std::io::ErrorKind;
use std::process::Command;

pub const VERB: Verb = Verb {
    name: "ps",
    about: "show the processes of a container",
    arguments: "<container-id> [ps options]",
    count: (1, usize::MAX),
    trailing: true,
    text: "The table is what ps(1) prints with these options (default: -ef); it must have a column PID.",
    flags: &[FORMAT],
    run,
};

pub fn run(global: &Global, args: &Parsed) -> Result<u8, Failure> {
    let json = in_json(args)?;
    let pids = global.load(args)?.processes()?;
    if json {
        return output::print(&format!("{}\n", serde_json::Value::from(pids)));
    }
    let options = match &args.rest[1..] {
        [] => vec!["-ef"],
        given => given.iter().map(String::as_str).collect(),
    };
    let ran = Command::new("ps").args(&options).output().map_err(|error| match error.kind() {
        ErrorKind::NotFound => Failure::new(
            "execute ps: No such file or directory (ENOENT); hint: install ps(1), of the package procps, \
             or ask for --format json",
        ),
        _ => Failure::os("execute ps", error),
    })?;
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr).trim().to_string();
        let code = ran.status.code().unwrap_or(255);
        return Err(Failure::new(format!("ps {}: exit status {code}: {said}", options.join(" "))));
    }
    output::print(&rows(&String::from_utf8_lossy(&ran.stdout), &pids)?)
}

/// The header of the output of ps(1), and its rows for `pids`.
fn rows(table: &str, pids: &[i32]) -> Result<String, Failure> {
    let head = table.lines().next().unwrap_or_default();
    let column = head.split_whitespace().position(|name| name == "PID");
    let column = column.ok_or_else(|| Failure::new("the table of ps has no column PID"))?;
    let is_ours = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|field| field.parse().ok());
        pid.is_some_and(|pid: i32| pids.contains(&pid))
    };
    let kept = table.lines().skip(1).filter(is_ours);
    Ok(std::iter::once(head).chain(kept).map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_rows_of_the_container_stay() {
        let table = "UID  PID PPID CMD\nroot  1 0 init 42\nroot 42 1 sh\n";
        assert_eq!(super::rows(table, &[42]).ok().unwrap(), "UID  PID PPID CMD\nroot 42 1 sh\n");
        assert!(super::rows("CMD\nsh\n", &[42]).is_err());
    }
}
