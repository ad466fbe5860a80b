//! The shape of the source: import direction, sizes, where unsafe code may be, formatting.
//! Needs no root and builds nothing. ARCHITECTURE.md has the reasons.

use std::fs;
use std::path::{Path, PathBuf};

/// A source file of the library, the stage or containerd's shim.
struct Source {
    /// Below the library's crate, such as `src/plan/create.rs`; of the shim below the workspace.
    name: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for part in ["src", "stage/src", "tests", "examples"] {
        collect(&root.join(part), root, &mut found);
    }
    let workspace = root.parent().unwrap_or(root);
    for part in ["containerd-shim/src", "containerd-shim/tests"] {
        collect(&workspace.join(part), workspace, &mut found);
    }
    assert!(found.len() > 40, "only {} sources below {}", found.len(), root.display());
    found
}

fn collect(directory: &Path, root: &Path, found: &mut Vec<Source>) {
    let entries = fs::read_dir(directory).map(|entries| entries.filter_map(Result::ok).collect::<Vec<_>>());
    let mut paths: Vec<PathBuf> = entries.unwrap_or_default().iter().map(fs::DirEntry::path).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, root, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).expect("it is below").display().to_string();
            let text = fs::read_to_string(&path).unwrap_or_default();
            found.push(Source { name, text });
        }
    }
}

fn fail_with(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

/// Code without comments, texts of one line and characters, line by line: good enough to count braces.
fn code(text: &str) -> Vec<String> {
    let mut inside: Option<String> = None;
    text.lines().map(|line| code_of_line(line, &mut inside)).collect()
}

/// `inside` is what ends a text that goes on behind the line's end.
fn code_of_line(line: &str, inside: &mut Option<String>) -> String {
    let mut kept = String::new();
    let mut rest = line;
    loop {
        if let Some(end) = inside.clone() {
            let Some(at) = find_end(rest, &end) else { return kept };
            rest = &rest[at + end.len()..];
            *inside = None;
        }
        let Some(at) = rest.find(['"', '/', '\'']) else { return kept + rest };
        let (before, from) = rest.split_at(at);
        kept += before;
        if from.starts_with("//") {
            return kept;
        }
        rest = &from[1..];
        if from.starts_with('"') {
            let hashes = before.len() - before.trim_end_matches('#').len();
            let raw = before.trim_end_matches('#').ends_with('r');
            *inside = Some(if raw { format!("\"{}", "#".repeat(hashes)) } else { "\"".into() });
        } else if from.starts_with('\'') {
            let length = rest.strip_prefix('\\').and_then(|rest| rest.find('\'').map(|end| end + 2));
            let plain = rest.char_indices().nth(1).filter(|(_, c)| *c == '\'').map(|(end, _)| end + 1);
            rest = &rest[length.or(plain).unwrap_or(0)..];
        }
    }
}

fn find_end(text: &str, end: &str) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + text[from..].find(end)?;
        let slashes = text[..at].bytes().rev().take_while(|byte| *byte == b'\\').count();
        if end.len() > 1 || slashes % 2 == 0 {
            return Some(at);
        }
        from = at + 1;
    }
}

/// What a file imports or names of its own crate: the first part after `crate::`, `super::` at the
/// top level, and other crates.
fn names_module(source: &Source, module: &str) -> bool {
    code(&source.text).iter().any(|line| {
        [format!("crate::{module}"), format!("super::{module}")].iter().any(|path| {
            line.match_indices(path.as_str()).any(|(at, _)| {
                let next = line[at + path.len()..].chars().next();
                !next.is_some_and(|c| c.is_alphanumeric() || c == '_')
            })
        }) || in_list(line, module)
    })
}

/// `use crate::{a, b};` on one line.
fn in_list(line: &str, module: &str) -> bool {
    let Some(list) = line.trim_start().strip_prefix("use crate::{") else { return false };
    list.split([',', '}']).any(|name| name.trim().split("::").next() == Some(module))
}

/// Each row: files that begin so must not name these modules.
const DIRECTION: &[(&str, &[&str], &str)] = &[
    (
        "src/plan",
        &[
            "parent",
            "create",
            "container",
            "exec",
            "cgroup",
            "state",
            "sys",
            "stage",
            "userns",
            "hooks",
            "network",
        ],
        "a planner knows the config, the host and steps",
    ),
    (
        "src/config",
        &[
            "plan",
            "host",
            "parent",
            "create",
            "container",
            "exec",
            "cgroup",
            "state",
            "sys",
            "stage",
            "userns",
            "seccomp",
        ],
        "the config knows nothing of what is done with it",
    ),
    (
        "src/seccomp",
        &[
            "plan",
            "host",
            "parent",
            "create",
            "container",
            "exec",
            "cgroup",
            "state",
            "sys",
            "stage",
            "userns",
        ],
        "the filter's compiler is pure",
    ),
    (
        "src/cgroup",
        &["plan", "parent", "create", "container", "exec", "stage", "hooks"],
        "cgroups are below the verbs",
    ),
    (
        "src/host.rs",
        &["plan", "parent", "create", "container", "exec", "stage"],
        "the host is what planners ask",
    ),
    (
        "src/sys",
        &["plan", "host", "parent", "create", "container", "exec", "cgroup", "state", "config"],
        "sys decides nothing",
    ),
    (
        "src/error.rs",
        &["plan", "host", "parent", "create", "container", "exec", "cgroup", "state", "config", "sys"],
        "errors are below all",
    ),
];

#[test]
fn imports_go_one_way() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| !is_test(&source.name)) {
        for (prefix, forbidden, why) in DIRECTION {
            if !source.name.starts_with(prefix) {
                continue;
            }
            for module in *forbidden {
                // plan/create.rs and config/seccomp.rs are siblings of that name.
                let sibling = source.name.starts_with("src/plan") && *module == "create";
                if !sibling && names_module(source, module) {
                    broken.push(format!("{} names {module}: {why}", source.name));
                }
            }
        }
        let stage = source.name.starts_with("stage/");
        if stage && ["oci_spec", "libruntime", "nix::", "std::"].iter().any(|name| uses(source, name)) {
            broken.push(format!("{} uses more than steps and system calls", source.name));
        }
    }
    fail_with("imports go one way", &broken);
}

fn uses(source: &Source, name: &str) -> bool {
    code(&source.text).iter().any(|line| {
        line.match_indices(name)
            .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
    })
}

/// Only these bring plans and the stage together.
const BOTH: &[&str] = &[
    "src/parent.rs",
    "src/checkpoint.rs",
    "src/create.rs",
    "src/criu.rs",
    "src/exec.rs",
    "src/restore.rs",
    "src/verify.rs",
    "src/container.rs",
    "src/start.rs",
    "src/hints.rs",
    "src/fuzzing.rs",
    "src/hooks.rs",
    "src/mounts.rs",
    "src/userns.rs",
    "src/network",
];

#[test]
fn only_the_parent_knows_both_plans_and_the_stage() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| source.name.starts_with("src/") && !is_test(&source.name))
    {
        let allowed =
            BOTH.iter().any(|name| source.name.starts_with(name)) || source.name.starts_with("src/plan");
        if !allowed && names_module(source, "step") {
            broken.push(format!("{} knows the stage's types", source.name));
        }
        if !allowed && names_module(source, "parent") && source.name != "src/netdevices.rs" {
            broken.push(format!("{} knows the parent", source.name));
        }
    }
    fail_with("only the parent, create, exec and the container use plan and stage", &broken);
}

fn is_test(name: &str) -> bool {
    name.contains("tests") || name.starts_with("examples")
}

/// Lists, which are read from top to bottom.
const LONG_FUNCTIONS: &[(&str, &str)] =
    &[("src/plan/create.rs", "create"), ("stage/src/main.rs", "run_step")];
const LONGEST_FUNCTION: usize = 60;
const LONGEST_FILE: usize = 600;
/// Tables of data.
const LONG_FILES: &[&str] = &["src/seccomp/tables.rs"];

#[test]
fn functions_and_files_are_short() {
    let mut broken = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        if lines > LONGEST_FILE && !LONG_FILES.contains(&source.name.as_str()) {
            broken.push(format!("{} has {lines} lines", source.name));
        }
        for (name, length) in functions(&source) {
            // A test is as long as what it expects.
            let expectation =
                ["src/plan/tests", "tests/real/errors.rs"].iter().any(|name| source.name.starts_with(name));
            let allowed = LONG_FUNCTIONS.contains(&(source.name.as_str(), name.as_str())) || expectation;
            if length > LONGEST_FUNCTION && !allowed {
                broken.push(format!("{}: fn {name} has {length} lines", source.name));
            }
        }
    }
    fail_with("a function has at most 60 lines, a file 600", &broken);
}

/// Names and lengths, from the line with `fn` to its closing brace.
fn functions(source: &Source) -> Vec<(String, usize)> {
    let lines = code(&source.text);
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let mut depth = 0i32;
        for (at, line) in lines.iter().enumerate().skip(start) {
            depth += line.matches('{').count() as i32 - line.matches('}').count() as i32;
            let declared = depth == 0 && line.trim_end().ends_with(';');
            if depth == 0 && (line.contains('}') || declared) {
                found.push((name, at - start + 1));
                break;
            }
        }
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "fn")?;
    let before = ["pub", "const", "unsafe", "extern", "async", "pub(crate)", "pub(super)"];
    let known =
        |word: &&str| before.contains(word) || word.starts_with("pub(in") || word.starts_with("crate::");
    words[..at].iter().all(known).then_some(())?;
    let name: String = words.get(at + 1)?.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// Where unsafe code may be: the library's system calls; and the stage, which has no other way to
/// make one, but not its steps' vocabulary or its reading of paths.
const UNSAFE: &[&str] = &["src/sys.rs", "src/sys/", "containerd-shim/src/sys.rs", "containerd-shim/src/sys/"];
const UNSAFE_IN_STAGE: &[&str] = &["bare.rs", "cgroup.rs", "kernel.rs", "main.rs"];

#[test]
fn unsafe_code_is_in_few_places() {
    let mut broken = Vec::new();
    for source in sources() {
        let stage = source.name.strip_prefix("stage/src/");
        let allowed = match stage {
            Some(file) => UNSAFE_IN_STAGE.contains(&file),
            None => {
                UNSAFE.iter().any(|place| source.name.starts_with(place))
                    || source.name.starts_with("tests/")
                    || source.name.starts_with("containerd-shim/tests/")
            }
        };
        let word =
            |line: &String| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == "unsafe");
        let found = code(&source.text).iter().any(word);
        if found && !allowed {
            broken.push(format!("{} has unsafe code", source.name));
        }
    }
    broken.extend(sources().iter().flat_map(safe_functions_with_any_call));
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    if !lib.contains("#![deny(unsafe_code)]") {
        broken.push("src/lib.rs does not deny it".into());
    }
    fail_with("unsafe code is in sys and in the stage's own", &broken);
}

/// A function that makes whatever system call it is told to is an unsafe one.
fn safe_functions_with_any_call(source: &Source) -> Vec<String> {
    let lines = code(&source.text);
    let makes_it = |line: &&(usize, &String)| line.1.contains("syscalls::raw::syscall");
    let declared = |at: usize| lines[..=at].iter().rev().find(|line| function_name(line).is_some());
    let safe = lines.iter().enumerate().filter(|line| makes_it(&line)).filter_map(|(at, _)| declared(at));
    safe.filter(|line| !line.contains("unsafe fn"))
        .map(|line| format!("{}: a safe function with any system call: {line}", source.name))
        .collect()
}

#[test]
fn every_module_says_what_it_is() {
    let missing = |source: &Source| !source.text.starts_with("//!") && !source.name.contains("tests");
    let broken: Vec<String> = sources().iter().filter(|s| missing(s)).map(|s| s.name.clone()).collect();
    fail_with("a module begins with what it does", &broken);
}

#[test]
fn names_do_not_hide_what_a_type_is() {
    let mut broken = Vec::new();
    for source in sources() {
        for line in code(&source.text) {
            let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            let declares = words.by_ref().any(|word| matches!(word, "struct" | "enum" | "trait" | "mod"));
            let name = words.next().unwrap_or_default();
            let vague = ["Manager", "Builder", "Context", "Handler", "Helper", "Executor", "Impl"];
            let plain = ["util", "utils", "common", "helper", "helpers", "misc"];
            if declares && (vague.iter().any(|end| name.ends_with(end)) || plain.contains(&name)) {
                broken.push(format!("{}: {name}", source.name));
            }
        }
    }
    fail_with("a name says what it is", &broken);
}

#[test]
fn the_source_is_formatted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = std::process::Command::new(cargo)
        .args(["fmt", "--check", "-p", "libruntime", "-p", "onggi-stage"])
        .current_dir(root)
        .output();
    let Ok(output) = output else { return eprintln!("skipped: there is no cargo to run") };
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("not installed") || said.contains("no such command") {
        return eprintln!("skipped: rustfmt is not installed");
    }
    let differences = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "cargo fmt would change:\n{said}{differences:.4000}");
}

/// The rules above see what they are for.
#[test]
fn the_rules_find_what_they_look_for() {
    let source = |text: &str| Source { name: "src/x.rs".into(), text: text.into() };
    let long = format!("fn long() {{\n{}}}\nfn short() {{ \"}}\"; '{{'; }} // }}\n", "    a();\n".repeat(70));
    assert_eq!(functions(&source(&long)), [("long".to_string(), 72), ("short".to_string(), 1)]);
    assert!(names_module(&source("use crate::{a, parent::Child};"), "parent"));
    assert!(names_module(&source("let x = crate::parent::y();"), "parent"));
    assert!(!names_module(&source("// crate::parent\nuse crate::parenthood;"), "parent"));
    let any_call =
        |before: &str| source(&format!("{before}fn call() {{\n    syscalls::raw::syscall6(nr)\n}}\n"));
    assert_eq!(safe_functions_with_any_call(&any_call("pub ")).len(), 1);
    assert_eq!(safe_functions_with_any_call(&any_call("unsafe ")).len(), 0);
    assert!(uses(&source("use nix::sys;"), "nix") && !uses(&source("\"nix\""), "nix"));
    assert_eq!(code("a(\"//\"); // b\nr#\"x\ny\"#z"), ["a(); ", "r#", "#z"].map(|s| s.replace("#z", "z")));
}
