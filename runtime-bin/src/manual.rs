//! Manual pages from the table of commands, in the macros of man(7): `onggi help --man [COMMAND]`.

use crate::cli::{Flag, GLOBAL, HELP, NO_VERB, Verb, spelled};
use crate::commands::VERBS;

/// A hyphen is a minus, and what would be a request at the beginning of a line is text.
fn text(plain: &str) -> String {
    let escaped = plain.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    let line = |line: &str| if line.starts_with('.') { format!("\\&{line}") } else { line.to_string() };
    escaped.lines().map(|one| line(one.trim())).collect::<Vec<_>>().join("\n")
}

fn head(name: &str, about: &str) -> String {
    let (title, version) = (name.to_uppercase(), env!("CARGO_PKG_VERSION"));
    format!(
        ".TH {} 8 \"\" \"onggi {version}\" \"System Administration\"\n.SH NAME\n{} \\- {}\n",
        text(&title),
        text(name),
        text(about)
    )
}

fn options(title: &str, flags: &'static [Flag]) -> String {
    let one = |flag: &Flag| format!(".TP\n.B {}\n{}\n", text(&spelled(flag)), text(flag.help));
    let all: String = flags.iter().chain([&HELP]).map(one).collect();
    format!(".SH {title}\n{all}")
}

/// The page `onggi-COMMAND(8)`.
pub fn page(verb: &Verb, flags: &'static [Flag]) -> String {
    let described = match verb.text.trim() {
        "" => String::new(),
        given => format!(".SH DESCRIPTION\n{}\n", text(given)),
    };
    format!(
        "{}.SH SYNOPSIS\n.B onggi\n[\\fIglobal flags\\fR]\n.B {}\n[\\fIflags\\fR] {}\n{described}{}.SH SEE ALSO\n.BR onggi (8)\n",
        head(&format!("onggi-{}", verb.name), verb.about),
        verb.name,
        text(verb.arguments),
        options("OPTIONS", flags),
    )
}

/// The page `onggi(8)`.
pub fn overview() -> String {
    let verbs = VERBS.iter().copied().chain([&NO_VERB]);
    let commands: String =
        verbs.map(|verb| format!(".TP\n.B {}\n{}\n", text(verb.name), text(verb.about))).collect();
    let also: Vec<String> = VERBS.iter().map(|verb| format!(".BR onggi\\-{} (8)", verb.name)).collect();
    format!(
        "{}.SH SYNOPSIS\n.B onggi\n[\\fIglobal flags\\fR] \\fIcommand\\fR [\\fIflags\\fR] [\\fIarguments\\fR]\n\
         .SH COMMANDS\n{commands}{}\
         .SH EXIT STATUS\n0, or 1 if the command failed, 3 if there is no such command. \
         \\fBrun\\fR and \\fBexec\\fR end with the status of the program, or 128 and the number of the \
         signal that ended it; \\fBexec\\fR with 255 if it could not start the program.\n\
         .SH SEE ALSO\n{}\n",
        head("onggi", "run containers from bundles of the Open Container Initiative"),
        options("GLOBAL OPTIONS", GLOBAL),
        also.join(",\n"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn man_shows_every_page_without_a_warning() {
        let pages = VERBS.iter().map(|verb| page(verb, verb.flags)).chain([overview()]);
        let dir = std::env::temp_dir().join(format!("onggi-man-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for (at, text) in pages.enumerate() {
            let file = dir.join(format!("{at}.8"));
            std::fs::write(&file, &text).unwrap();
            let shown = Command::new("man").args(["--warnings", "-E", "UTF-8", "-l"]).arg(&file).output();
            let Ok(shown) = shown else {
                eprintln!("skipped: man is not installed");
                break;
            };
            let said = String::from_utf8_lossy(&shown.stderr).into_owned();
            assert!(shown.status.success() && said.is_empty(), "{said}\n{text}");
            let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
            assert!(shown.contains("NAME") && shown.contains("SYNOPSIS"), "{shown}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn text_cannot_become_a_request() {
        assert_eq!(text(".x\n'y -z\\"), "\\&.x\n\\(aqy \\-z\\e");
    }
}
