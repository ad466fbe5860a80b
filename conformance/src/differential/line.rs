//! One line of lines.txt: `GROUP::NAME PLACE [ARGUMENT…] [; CHANGE]…`.
//!
//! The place is what the line finds: `bare` (nothing, and no global flags), `absent` (no container),
//! `bundle`, or a container that is `created`, `running`, `paused` or `stopped`. `config` is short for
//! `bundle create --bundle $BUNDLE $ID`, and `start` for a `created` one that is started.
//! A change is `PATH=JSON` (set), `PATH+=JSON` (append), `PATH-` (remove), `link PATH TARGET`,
//! `file PATH TEXT` (which may be executed) or `gone PATH`, these three below the bundle.

use super::wrong;
use crate::bundle::{self, Config};
use crate::case::Outcome;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Bare,
    Absent,
    Bundle,
    Created,
    Running,
    Paused,
    Stopped,
}

#[derive(Debug)]
pub struct Line {
    pub name: String,
    pub place: Place,
    pub args: Vec<String>,
    changes: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Set(String, serde_json::Value),
    Push(String, serde_json::Value),
    Remove(String),
    Link(String, String),
    File(String, String),
    Gone(String),
}

static TEXT: &str = include_str!("../../lines.txt");

impl Line {
    pub fn all() -> Result<Vec<Self>, String> {
        let lines: Vec<Self> = TEXT
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(Self::parse)
            .collect::<Result<_, _>>()?;
        let mut names: Vec<&str> = lines.iter().map(|line| line.name.as_str()).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => wrong(format!("two lines are called {}", pair[0])),
            None => Ok(lines),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split(" ; ");
        let mut words = words(parts.next().unwrap_or_default())?.into_iter();
        let (Some(name), Some(place)) = (words.next(), words.next()) else {
            return wrong(format!("a line needs a name and a place: {text}"));
        };
        let mut args: Vec<String> = words.collect();
        let given = |text: &str| text.split(' ').map(str::to_owned).collect();
        let place = match place.as_str() {
            "bare" => Place::Bare,
            "absent" => Place::Absent,
            "bundle" => Place::Bundle,
            "config" => {
                args = given("create --bundle $BUNDLE $ID");
                Place::Bundle
            }
            "start" => {
                args = given("start $ID");
                Place::Created
            }
            "created" => Place::Created,
            "running" => Place::Running,
            "paused" => Place::Paused,
            "stopped" => Place::Stopped,
            other => return wrong(format!("no place is called {other}: {text}")),
        };
        let changes = parts.map(|part| Change::parse(part.trim())).collect::<Result<_, _>>()?;
        Ok(Self { name, place, args, changes })
    }

    /// Whether it needs a root file system of its own.
    pub fn changes_files(&self) -> bool {
        self.changes.iter().any(|change| {
            matches!(change, Change::Link(path, _) | Change::File(path, _) | Change::Gone(path)
                if path.starts_with("rootfs"))
        })
    }

    pub fn change(&self, config: &mut Config, bundle: &Path) -> Outcome {
        for change in &self.changes {
            match change {
                Change::Set(path, value) => drop(config.set(path, value.clone())),
                Change::Push(path, value) => drop(config.push(path, value.clone())),
                Change::Remove(path) => drop(config.remove(path)),
                _ => {}
            }
        }
        let dir = bundle.parent().unwrap_or(bundle).display().to_string();
        fs::write(bundle.join("config.json"), config.0.to_string().replace("$DIR", &dir))?;
        for change in &self.changes {
            match change {
                Change::Link(path, target) => bundle::link(&bundle.join(path), target)?,
                Change::File(path, text) => {
                    fs::write(bundle.join(path), text)?;
                    fs::set_permissions(bundle.join(path), fs::Permissions::from_mode(0o755))?;
                }
                Change::Gone(path) if bundle.join(path).is_dir() => fs::remove_dir_all(bundle.join(path))?,
                Change::Gone(path) => fs::remove_file(bundle.join(path))?,
                _ => {}
            }
        }
        Ok(())
    }
}

impl Change {
    fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.splitn(3, ' ').collect();
        let owned = str::to_owned;
        match parts[..] {
            ["link", path, target] => return Ok(Self::Link(owned(path), owned(target))),
            ["file", path, content] => return Ok(Self::File(owned(path), content.replace("\\n", "\n"))),
            ["gone", path] => return Ok(Self::Gone(owned(path))),
            _ => {}
        }
        if let Some(path) = text.strip_suffix('-') {
            return Ok(Self::Remove(owned(path)));
        }
        let Some((path, value)) = text.split_once('=') else { return wrong(format!("no change: {text}")) };
        let value = serde_json::from_str(value).map_err(|error| format!("lines.txt: {text}: {error}"))?;
        Ok(match path.strip_suffix('+') {
            Some(path) => Self::Push(owned(path), value),
            None => Self::Set(owned(path), value),
        })
    }
}

/// Words as in a shell, with single quotes only.
fn words(text: &str) -> Result<Vec<String>, String> {
    let (mut found, mut word, mut quoted, mut any) = (Vec::new(), String::new(), false, false);
    for c in text.chars() {
        match c {
            '\'' => (quoted, any) = (!quoted, true),
            ' ' if !quoted => {
                if any || !word.is_empty() {
                    found.push(std::mem::take(&mut word));
                }
                any = false;
            }
            c => word.push(c),
        }
    }
    if quoted {
        return wrong(format!("a quote is not closed: {text}"));
    }
    if any || !word.is_empty() {
        found.push(word);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_can_be_read_and_there_are_hundreds() {
        let lines = Line::all().expect("lines.txt is right");
        assert!(lines.len() >= 300, "only {}", lines.len());
    }

    #[test]
    fn words_have_quotes() {
        assert_eq!(words("a 'b c' ''  d").unwrap(), ["a", "b c", "", "d"]);
        assert!(words("a 'b").is_err());
    }

    #[test]
    fn a_line_has_a_place_arguments_and_changes() {
        let line = Line::parse("x::y config ; root=null ; process.args+=\"z\" ; gone rootfs/proc").unwrap();
        assert_eq!((line.place, line.args.len(), line.changes.len()), (Place::Bundle, 4, 3));
        assert!(line.changes_files());
        assert!(Line::parse("x::y nowhere").is_err());
        assert!(Line::parse("x::y config ; root={").is_err());
    }
}
