//! Parses the command line by a table: `-flag`, `--flag`, `--flag=value` and `--flag value` are all the same, as in
//! Go's programs, whose callers use each of these forms.
//!
//! Says what is written, not what it means: that is for global.rs and the verbs. The verbs' tables are in commands/.

use crate::commands::VERBS;
use crate::failure::Failure;
use crate::global::Global;
use crate::{manual, output};
use std::ffi::OsString;

pub struct Flag {
    pub name: &'static str,
    pub short: Option<&'static str>,
    /// The word for its value in the help; `None` for a switch.
    pub value: Option<&'static str>,
    pub help: &'static str,
}

impl Flag {
    pub const fn switch(name: &'static str, help: &'static str) -> Self {
        Self { name, short: None, value: None, help }
    }

    pub const fn value(name: &'static str, value: &'static str, help: &'static str) -> Self {
        Self { name, short: None, value: Some(value), help }
    }

    pub const fn short(self, short: &'static str) -> Self {
        Self { short: Some(short), ..self }
    }
}

pub struct Verb {
    pub name: &'static str,
    pub about: &'static str,
    /// The arguments, as in `<container-id> [signal]`.
    pub arguments: &'static str,
    /// The least and the largest number of them.
    pub count: (usize, usize),
    /// After the first argument, flags belong to the program that is run.
    pub trailing: bool,
    pub text: &'static str,
    pub flags: &'static [Flag],
    /// Does it, and returns the exit code.
    pub run: fn(&Global, &Parsed) -> Result<u8, Failure>,
}

impl Verb {
    /// A verb whose one argument is a container.
    pub const fn of_container(
        name: &'static str,
        about: &'static str,
        run: fn(&Global, &Parsed) -> Result<u8, Failure>,
    ) -> Self {
        let arguments = "<container-id>";
        Self { name, about, arguments, count: (1, 1), trailing: false, text: "", flags: &[], run }
    }

    /// Whether its container is a new one.
    pub fn makes_container(&self) -> bool {
        self.flags.iter().any(|flag| flag.name == "bundle")
    }
}

pub const GLOBAL: &[Flag] = &[
    Flag::value(
        "root",
        "DIR",
        "where the state of containers is kept (default: /run/onggi, or $XDG_RUNTIME_DIR/onggi)",
    ),
    Flag::value("log", "FILE", "append errors and warnings to this file"),
    Flag::value("log-format", "FORMAT", "text or json (default: text)"),
    Flag::switch("debug", "log each thing that is done, with its time; warnings also go to standard error"),
    Flag::switch("systemd-cgroup", "have systemd make the cgroups; cgroupsPath is slice:prefix:name"),
    Flag::value("cgroup-manager", "WHO", "cgroupfs, systemd or disabled, as with crun"),
    Flag::value("criu", "PATH", "accepted and ignored, as with runc since 1.2: criu is looked for in $PATH"),
    Flag::value("rootless", "WHEN", "true, false or auto; accepted as with runc, and detected anyway"),
    Flag::switch(
        "network-annotations",
        "allow annotations org.onggi.network.* of config.json: their author can then change the host's network",
    ),
    Flag::switch(
        "hook-output-annotations",
        "allow annotations run.oci.hooks.stdout and .stderr: their author can then append to the host's files",
    ),
    Flag::switch("version", "print the version").short("v"),
];

pub const HELP: Flag = Flag::switch("help", "print this text").short("h");

/// Flags with their values in order, and the rest.
#[derive(Default)]
pub struct Parsed {
    flags: Vec<(&'static str, String)>,
    pub rest: Vec<String>,
}

impl Parsed {
    /// The last value of a flag.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.flags.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.flags.iter().filter(move |(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// The flags with these names, in their order on the command line.
    pub fn in_order(&self, names: &[&str]) -> impl Iterator<Item = (&'static str, &str)> {
        let wanted = self.flags.iter().filter(move |(known, _)| names.contains(known));
        wanted.map(|(name, value)| (*name, value.as_str()))
    }

    /// Whether a switch is on.
    pub fn is_set(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Failure> {
        let parse =
            |text: &str| text.parse().map_err(|_| Failure::flag(name, text, "parse error, it is a number"));
        self.get(name).map(parse).transpose()
    }

    /// An argument, or an empty text where there is none.
    pub fn positional(&self, at: usize) -> &str {
        self.rest.get(at).map_or("", String::as_str)
    }
}

/// A whole command line.
pub struct Line {
    pub global: Parsed,
    pub verb: &'static Verb,
    pub args: Parsed,
}

pub const NO_VERB: Verb = Verb {
    name: "help",
    about: "show the commands, or how to use one",
    arguments: "[command]",
    count: (0, 1),
    trailing: false,
    text: "",
    flags: &[Flag::switch("man", "print the manual page, for man -l or a package")],
    run: |_, _| output::print(&overview()),
};

/// Reads the command line. An error comes with the global flags that were read before it, because they name the log.
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Line, Box<(Parsed, Failure)>> {
    let mut words = Vec::new();
    for word in args {
        match word.into_string() {
            Ok(word) => words.push(word),
            Err(word) => {
                return Err(Box::new((
                    Parsed::default(),
                    Failure::usage(format!("argument {word:?} is not UTF-8")),
                )));
            }
        }
    }
    let mut words = words.into_iter();
    let mut global = Parsed::default();
    if let Err(failure) = read(&mut words, GLOBAL, true, "", &mut global) {
        return Err(Box::new((global, failure)));
    }
    let Some(name) = global.rest.first().cloned() else {
        return Ok(Line { global, verb: &NO_VERB, args: Parsed::default() });
    };
    let mut words = std::mem::take(&mut global.rest).into_iter().skip(1);
    let known = || {
        VERBS
            .iter()
            .copied()
            .chain([&NO_VERB])
            .find(|verb| verb.name == name || (name == "h" && verb.name == "help"))
    };
    let Some(verb) = known() else {
        return Err(Box::new((global, no_such_command(&name))));
    };
    let mut args = Parsed::default();
    match read(&mut words, verb.flags, verb.trailing, verb.name, &mut args)
        .and_then(|()| check_count(verb, &args))
    {
        Ok(()) => Ok(Line { global, verb, args }),
        Err(failure) => Err(Box::new((global, failure))),
    }
}

fn check_count(verb: &Verb, args: &Parsed) -> Result<(), Failure> {
    let (least, most) = verb.count;
    if args.is_set("help") || (least..=most).contains(&args.rest.len()) {
        return Ok(());
    }
    let given = args.rest.len();
    let number = match (least, most) {
        (least, most) if least == most => format!("exactly {least}"),
        (least, _) if given < least => format!("a minimum of {least}"),
        (_, most) => format!("a maximum of {most}"),
    };
    let usage = format!("onggi {} [flags] {}", verb.name, verb.arguments);
    Err(Failure::usage(format!("{:?} requires {number} argument(s): {}", verb.name, usage.trim_end())))
}

/// The exit code tells an unknown command from one that failed, for engines that probe for commands.
fn no_such_command(name: &str) -> Failure {
    let message = format!("No help topic for '{name}': there is no such command; see onggi --help");
    Failure { usage: true, ..Failure::new(message).with_code(3) }
}

/// Reads flags; with `trailing` up to the first argument, else also between and after arguments.
fn read(
    words: &mut dyn Iterator<Item = String>,
    known: &[Flag],
    trailing: bool,
    verb: &str,
    parsed: &mut Parsed,
) -> Result<(), Failure> {
    while let Some(word) = words.next() {
        let Some(flag) = word.strip_prefix('-').filter(|flag| !flag.is_empty()) else {
            parsed.rest.push(word);
            if trailing {
                break;
            }
            continue;
        };
        if word == "--" {
            break;
        }
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
        let found = known.iter().chain([&HELP]).find(|flag| flag.name == name || flag.short == Some(name));
        let Some(found) = found else {
            let of = if verb.is_empty() { String::new() } else { format!(" for {verb}") };
            return Err(Failure::usage(format!("flag provided but not defined: -{name}{of}")));
        };
        let value = match (found.value, value) {
            (Some(_), Some(value)) => value.to_string(),
            (Some(_), None) => {
                words.next().ok_or_else(|| Failure::usage(format!("flag needs an argument: -{name}")))?
            }
            (None, None) => "true".to_string(),
            (None, Some(value)) => switch(name, value)?.to_string(),
        };
        parsed.flags.push((found.name, value));
    }
    parsed.rest.extend(words);
    Ok(())
}

fn switch(name: &str, value: &str) -> Result<bool, Failure> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Failure::flag(name, value, "parse error, it is true or false")),
    }
}

/// The text for `--help`, `help`, `--version`, or no command at all.
pub fn asked_for_help(line: &Line) -> Result<Option<String>, Failure> {
    if line.global.is_set("version") {
        return Ok(Some(version()));
    }
    if line.args.is_set("help") {
        return Ok(Some(if line.verb.name == "help" { overview() } else { help(line.verb) }));
    }
    if line.verb.name != "help" {
        return Ok(line.global.is_set("help").then(overview));
    }
    let man = line.args.is_set("man");
    match line.args.positional(0) {
        "" => Ok(Some(if man { manual::overview() } else { overview() })),
        name => {
            let verb = VERBS.iter().find(|verb| verb.name == name).ok_or_else(|| no_such_command(name))?;
            Ok(Some(if man { manual::page(verb, verb.flags) } else { help(verb) }))
        }
    }
}

fn version() -> String {
    let commit = option_env!("ONGGI_COMMIT").unwrap_or("unknown");
    format!("onggi version {}\ncommit: {commit}\nspec: 1.3.0\n", env!("CARGO_PKG_VERSION"))
}

fn overview() -> String {
    let mut text = String::from(
        "onggi runs containers from bundles of the Open Container Initiative\n\n\
         USAGE:\n   onggi [global flags] command [flags] [arguments]\n\nCOMMANDS:\n",
    );
    for verb in VERBS.iter().copied().chain([&NO_VERB]) {
        text.push_str(&format!("   {:10} {}\n", verb.name, verb.about));
    }
    text.push_str("\nGLOBAL FLAGS:\n");
    text + &flags(GLOBAL)
}

fn help(verb: &Verb) -> String {
    let Verb { name, about, arguments, text, .. } = verb;
    let described = if text.is_empty() { String::new() } else { format!("\n{}\n", text.trim()) };
    format!(
        "onggi {name}: {about}\n\nUSAGE:\n   onggi {name} [flags] {arguments}\n{described}\nFLAGS:\n{}",
        flags(verb.flags)
    )
}

/// A flag as it is written: `--env, -e NAME[=VALUE]`.
pub fn spelled(flag: &Flag) -> String {
    let value = flag.value.map(|value| format!(" {value}")).unwrap_or_default();
    let short = flag.short.map(|short| format!(", -{short}")).unwrap_or_default();
    format!("--{}{short}{value}", flag.name)
}

fn flags(flags: &[Flag]) -> String {
    let all = || flags.iter().chain([&HELP]);
    let width = all().map(|flag| spelled(flag).len()).max().unwrap_or(0);
    all().map(|flag| format!("   {:width$}  {}\n", spelled(flag), flag.help)).collect()
}
