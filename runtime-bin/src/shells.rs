//! Completions for shells, from the table of commands: `onggi completion bash|zsh|fish`.
//!
//! Must not know a command or a flag by name: everything comes from the table.

use crate::cli::{Flag, GLOBAL, HELP, NO_VERB, Verb};
use crate::commands::VERBS;
use std::fmt::Write;

fn verbs() -> impl Iterator<Item = &'static Verb> {
    VERBS.iter().copied().chain([&NO_VERB])
}

fn with_help(flags: &'static [Flag]) -> impl Iterator<Item = &'static Flag> {
    flags.iter().chain([&HELP])
}

/// Whether the first argument is a container that exists.
fn takes_container(verb: &Verb) -> bool {
    verb.arguments.starts_with("<container-id>") && !verb.makes_container()
}

/// Whether a flag's value is a path, by the word that stands for the value in the help.
fn is_path(flag: &Flag) -> bool {
    flag.value.is_some_and(|value| ["DIR", "FILE", "SOCKET", "PATH"].iter().any(|word| value.contains(word)))
}

fn spellings(flag: &Flag) -> Vec<String> {
    let short = flag.short.map(|short| format!("-{short}"));
    [format!("--{}", flag.name)].into_iter().chain(short).collect()
}

fn joined(flags: &'static [Flag]) -> String {
    with_help(flags).flat_map(spellings).collect::<Vec<_>>().join(" ")
}

pub fn bash() -> String {
    let names: Vec<&str> = verbs().map(|verb| verb.name).collect();
    let valued = |path: bool| {
        let all = GLOBAL.iter().chain(verbs().flat_map(|verb| verb.flags));
        let mut found: Vec<String> =
            all.filter(|flag| flag.value.is_some() && is_path(flag) == path).flat_map(spellings).collect();
        found.sort();
        found.dedup();
        found.join("|")
    };
    let mut cases = String::new();
    for verb in verbs() {
        let _ = writeln!(cases, "        {}) words='{}' ;;", verb.name, joined(verb.flags));
    }
    let of_container: Vec<&str> =
        verbs().filter(|verb| takes_container(verb)).map(|verb| verb.name).collect();
    format!(
        "# bash completion for onggi\n\
         _onggi() {{\n    \
             local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} verb= words= root= i\n    \
             for ((i = 1; i < COMP_CWORD; i++)); do\n        \
                 case ${{COMP_WORDS[i]}} in\n            \
                     --root) root=${{COMP_WORDS[++i]}} ;;\n            \
                     {paths}|{others}) ((i++)) ;;\n            \
                     -*) ;;\n            \
                     *) verb=${{COMP_WORDS[i]}}; break ;;\n        \
                 esac\n    \
             done\n    \
             case $prev in\n        \
                 {paths}) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n        \
                 {others}) COMPREPLY=(); return ;;\n    \
             esac\n    \
             case $verb in\n        \
                 '') words='{names} {global}' ;;\n{cases}    \
             esac\n    \
             case $verb in\n        \
                 {containers}) [[ $cur == -* ]] || words+=\" $(onggi ${{root:+--root \"$root\"}} list -q 2>/dev/null)\" ;;\n    \
             esac\n    \
             COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n\
         }}\n\
         complete -o default -F _onggi onggi\n",
        paths = valued(true),
        others = valued(false),
        names = names.join(" "),
        global = joined(GLOBAL),
        containers = of_container.join("|"),
    )
}

/// Escapes a text for single quotes of a shell, inside a specification of zsh's `_arguments`.
fn for_zsh(text: &str) -> String {
    let mut quoted = String::new();
    for c in text.chars() {
        match c {
            '\'' => quoted.push_str("'\\''"),
            '[' | ']' | ':' | '\\' => quoted.extend(['\\', c]),
            c => quoted.push(c),
        }
    }
    quoted
}

fn zsh_flags(flags: &'static [Flag]) -> String {
    let one = |flag: &'static Flag| {
        let value = match (flag.value, is_path(flag)) {
            (None, _) => String::new(),
            (Some(value), true) => format!(":{}:_files", for_zsh(value)),
            (Some(value), false) => format!(":{}: ", for_zsh(value)),
        };
        let line = move |name: String| format!(" \\\n            '*{name}[{}]{value}'", for_zsh(flag.help));
        spellings(flag).into_iter().map(line)
    };
    with_help(flags).flat_map(one).collect()
}

pub fn zsh() -> String {
    let mut described = String::new();
    let mut cases = String::new();
    for verb in verbs() {
        let _ = writeln!(described, "        '{}:{}'", verb.name, for_zsh(verb.about));
        let first = if takes_container(verb) { "1:container:_onggi_containers" } else { "1: : " };
        let flags = zsh_flags(verb.flags);
        let _ = writeln!(
            cases,
            "        {}) _arguments{flags} \\\n            '{first}' '*::: :_default' ;;",
            verb.name
        );
    }
    format!(
        "#compdef onggi\n\
         _onggi_containers() {{\n    local -a ids\n    ids=(${{(f)\"$(onggi list -q 2>/dev/null)\"}})\n    \
         compadd -a ids\n}}\n\
         _onggi() {{\n    local -a verbs\n    local context state line\n    verbs=(\n{described}    )\n    \
         _arguments -C{global} \\\n            '1: :->verb' '*:: :->rest'\n    \
         case $state in\n        verb) _describe command verbs ;;\n        rest) case $words[1] in\n{cases}        \
         esac ;;\n    esac\n}}\n_onggi \"$@\"\n",
        global = zsh_flags(GLOBAL),
    )
}

fn for_fish(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
}

fn fish_flags(condition: &str, flags: &'static [Flag]) -> String {
    let mut text = String::new();
    for flag in with_help(flags) {
        let short = flag.short.map(|short| format!(" -s {short}")).unwrap_or_default();
        let value = match (flag.value, is_path(flag)) {
            (None, _) => "",
            (Some(_), true) => " -r -F",
            (Some(_), false) => " -x",
        };
        let help = for_fish(flag.help);
        let _ =
            writeln!(text, "complete -c onggi -n '{condition}' -l {}{short}{value} -d '{help}'", flag.name);
    }
    text
}

pub fn fish() -> String {
    let mut text = String::from("# fish completion for onggi\ncomplete -c onggi -f\n");
    text += &fish_flags("__fish_use_subcommand", GLOBAL);
    for verb in verbs() {
        let (name, about) = (verb.name, for_fish(verb.about));
        let _ = writeln!(text, "complete -c onggi -n '__fish_use_subcommand' -a {name} -d '{about}'");
        let condition = format!("__fish_seen_subcommand_from {name}");
        text += &fish_flags(&condition, verb.flags);
        if takes_container(verb) {
            let _ = writeln!(text, "complete -c onggi -n '{condition}' -a '(onggi list -q 2>/dev/null)'");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    /// A shell that is not installed is skipped, and the output says so.
    fn is_accepted_by(shell: &str, text: &str) {
        let started = Command::new(shell).arg("-n").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let Ok(mut child) = started else {
            eprintln!("skipped: {shell} is not installed");
            return;
        };
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{shell}: {}\n{text}", String::from_utf8_lossy(&output.stderr));
    }

    #[test]
    fn shells_can_read_their_completions() {
        is_accepted_by("bash", &bash());
        is_accepted_by("zsh", &zsh());
        is_accepted_by("fish", &fish());
    }

    #[test]
    fn every_command_and_flag_is_there() {
        for text in [bash(), zsh(), fish()] {
            for verb in verbs() {
                assert!(text.contains(verb.name), "{}", verb.name);
                for flag in verb.flags {
                    assert!(text.contains(flag.name), "{} {}", verb.name, flag.name);
                }
            }
        }
    }

    #[test]
    fn bash_completes_commands_flags_and_nothing_else() {
        let ask = |line: &str| {
            let script = format!(
                "{}\nCOMP_WORDS=(onggi {line}); COMP_CWORD=$(({} )); _onggi; echo \"${{COMPREPLY[@]}}\"",
                bash(),
                line.split(' ').count()
            );
            let output = Command::new("bash").args(["-c", &script]).output().unwrap();
            assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8_lossy(&output.stdout).trim().to_string()
        };
        if Command::new("bash").arg("-c").arg(":").status().is_err() {
            return eprintln!("skipped: bash is not installed");
        }
        assert_eq!(ask("crea"), "create");
        assert_eq!(ask("--root /x --debug exec --ignore"), "--ignore-paused");
        assert_eq!(ask("exec --user 0"), "", "a value is no command");
    }
}
