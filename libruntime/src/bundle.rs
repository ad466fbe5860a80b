//! The check of a bundle: everything that can be said about it before a container is created from it. The configuration
//! is checked against the specification (`config/examine.rs`), then against this kernel and this user by planning it,
//! and the files of the host that it names are looked for.
//!
//! Runs nothing and changes nothing. The configuration may be hostile: `config.json` has to be a regular file of at most
//! 16 MiB, and of the other files only the attributes are read (stat(2)).

use crate::config::examine::{Examined, examine, place};
use crate::config::{self, Config, removed::Removed};
use crate::diagnostic::{Diagnostic, DiagnosticCode as Code, Severity};
use crate::error::{Error, ErrorKind, Result};
use crate::new_container::NewContainer;
use crate::settings::Settings;
use nix::errno::Errno;
use oci_spec::runtime::{Hook, Spec};
use serde::Serialize;
use serde_json::Value;
use std::fs::Metadata;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(test)]
mod tests;

/// The largest `config.json` that is checked, in bytes: each finding is looked up in it.
const MAX_SIZE: usize = 16 << 20;

/// How often the configuration is planned again without what cannot be planned.
const MAX_ROUNDS: usize = 20;

/// What [`Runtime::check_bundle`](crate::Runtime::check_bundle) has found.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct BundleReport {
    /// The configuration that was read.
    pub config: PathBuf,
    /// Problems and warnings, in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
    #[serde(skip)]
    text: String,
}

impl BundleReport {
    /// The text of the configuration, which the spans are of.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How many problems there are; with one or more the container cannot be created.
    pub fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|one| one.severity == Severity::Error).count()
    }

    /// How many warnings there are.
    pub fn warnings(&self) -> usize {
        self.diagnostics.len() - self.errors()
    }
}

pub(crate) fn check(settings: &Arc<Settings>, bundle: &Path) -> Result<BundleReport> {
    let config = bundle.join("config.json");
    let bytes = config::read(bundle)?;
    if bytes.len() > MAX_SIZE {
        let error = Error::os(format!("check {}", config.display()), Errno::EFBIG);
        return Err(error.with_hint(format!("at most {} MiB are checked", MAX_SIZE >> 20)));
    }
    // A text that is not UTF-8 is not JSON either; the diagnostic has the place.
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    };
    let bundle =
        bundle.canonicalize().map_err(|error| Error::io(format!("open {}", bundle.display()), error))?;
    let Examined { spec, removed, mut diagnostics } = examine(&text);
    let mut of_host = Vec::new();
    if let Some(spec) = spec {
        of_host = files(&bundle, &spec);
        // With wrong namespaces nearly everything else is a problem too.
        let is_about_namespaces = |one: &Diagnostic| one.config_path.starts_with("linux.namespaces");
        if !diagnostics.iter().any(is_about_namespaces) {
            plan(settings, &bundle, spec, &mut of_host);
        }
    }
    for one in &mut of_host {
        one.config_path = removed.original(&one.config_path);
    }
    of_host.retain(|one| !diagnostics.iter().any(|known| known.config_path == one.config_path));
    place(&text, &mut of_host);
    diagnostics.append(&mut of_host);
    diagnostics.sort_by_key(|one| one.span.map(|span| span.start));
    Ok(BundleReport { config, diagnostics, text })
}

/// Finds what this kernel, this host and this user refuse. Planning ends at the first such property, so the
/// configuration is planned again without it. What the specification forbids is already found, and is taken out first.
fn plan(settings: &Arc<Settings>, bundle: &Path, spec: Spec, found: &mut Vec<Diagnostic>) {
    let (mut spec, mut removed) = (spec, Removed::default());
    for _ in 0..MAX_ROUNDS {
        let problems = match Config::from_spec(spec.clone()) {
            Err(error) => error.diagnostics().to_vec(),
            Ok(_) => {
                let container = NewContainer::new(settings.clone(), "check".into()).bundle(bundle);
                let (new, is_last) = match container.spec(spec.clone()).explain() {
                    Ok(explanation) => (explanation.warnings().to_vec(), true),
                    Err(error) => (problems_of(&error), false),
                };
                add(new.clone(), &removed, found);
                if is_last {
                    return;
                }
                new
            }
        };
        match without(&spec, &problems, &mut removed) {
            Some(rest) => spec = rest,
            None => return,
        }
    }
}

fn add(new: impl IntoIterator<Item = Diagnostic>, removed: &Removed, found: &mut Vec<Diagnostic>) {
    for mut one in new {
        one.config_path = removed.original(&one.config_path);
        if !found.iter().any(|known| known.config_path == one.config_path && known.message == one.message) {
            found.push(one);
        }
    }
}

fn problems_of(error: &Error) -> Vec<Diagnostic> {
    if !error.diagnostics().is_empty() {
        return error.diagnostics().to_vec();
    }
    let code = match error.kind() {
        ErrorKind::Unsupported => Code::Unsupported,
        ErrorKind::InvalidConfig => Code::InvalidValue,
        _ if error.errno() == Some(libc::ENOENT) => Code::NotFound,
        _ => Code::Failed,
    };
    let mut problem = Diagnostic::new(error.config_path().unwrap_or_default(), error.text()).with_code(code);
    problem.hint = error.hint().map(str::to_owned);
    vec![problem]
}

/// The configuration without the properties that have `problems`; `None` where one of them cannot be taken out.
fn without(spec: &Spec, problems: &[Diagnostic], removed: &mut Removed) -> Option<Spec> {
    let mut value = serde_json::to_value(spec).ok()?;
    let mut places: Vec<&str> = problems.iter().map(|one| one.config_path.as_str()).collect();
    places.dedup();
    // From the end of a list, so that the indices of the other elements stay the same.
    for place in places.into_iter().rev() {
        take_out(&mut value, place, removed)?;
    }
    serde_json::from_value(value).ok()
}

/// Removes what is at `place`; a required property gets another value.
fn take_out(value: &mut Value, place: &str, removed: &mut Removed) -> Option<()> {
    let (mut here, mut rest) = (value, place);
    loop {
        let way = &place[..place.len() - rest.len()];
        match here {
            Value::Array(list) => {
                let (index, after) = rest.strip_prefix('[')?.split_once(']')?;
                let index: usize = index.parse().ok().filter(|index| *index < list.len())?;
                if after.is_empty() {
                    list.remove(index);
                    let list = removed.original(way);
                    let original = removed.original_index(&list, index);
                    removed.note(&list, original);
                    return Some(());
                }
                (here, rest) = (list.get_mut(index)?, after);
            }
            Value::Object(object) => {
                // Names of sysctls contain dots: the longest name that matches is taken.
                let from = rest.strip_prefix('.').unwrap_or(rest);
                let fits = |name: &&String| {
                    from.strip_prefix(name.as_str())
                        .is_some_and(|after| matches!(after.as_bytes(), [] | [b'.' | b'[', ..]))
                };
                let name = object.keys().filter(fits).max_by_key(|name| name.len())?.clone();
                let after = &from[name.len()..];
                if !after.is_empty() {
                    (here, rest) = (object.get_mut(&name)?, after);
                    continue;
                }
                return match config::placeholder(&name) {
                    Some(any) if object.get(&name) != Some(&any) => object.insert(name, any).map(drop),
                    _ => object.remove(&name).map(drop),
                };
            }
            _ => return None,
        }
    }
}

/// Checks the files of the host that have to exist.
fn files(bundle: &Path, spec: &Spec) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    if let Some(root) = spec.root().as_ref().filter(|root| !root.path().as_os_str().is_empty()) {
        look_for("root.path", &bundle.join(root.path()), Kind::Directory, &mut found);
    }
    for (i, mount) in spec.mounts().iter().flatten().enumerate() {
        let options = mount.options().iter().flatten();
        let is_bind = mount.typ().as_deref() == Some("bind")
            || options.into_iter().any(|option| option == "bind" || option == "rbind");
        if let Some(source) =
            mount.source().as_ref().filter(|source| is_bind && !source.as_os_str().is_empty())
        {
            look_for(&format!("mounts[{i}].source"), &bundle.join(source), Kind::Any, &mut found);
        }
    }
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    for (i, namespace) in namespaces.into_iter().flatten().enumerate() {
        if let Some(path) = namespace.path().as_ref().filter(|path| path.has_root()) {
            look_for(&format!("linux.namespaces[{i}].path"), path, Kind::Any, &mut found);
        }
    }
    if let Some(hooks) = spec.hooks() {
        #[allow(deprecated)] // engines still use them
        let lists = [
            ("prestart", hooks.prestart()),
            ("createRuntime", hooks.create_runtime()),
            ("createContainer", hooks.create_container()),
            ("poststart", hooks.poststart()),
            ("poststop", hooks.poststop()),
        ];
        // startContainer hooks are programs of the container.
        for (list, hooks) in lists {
            each_hook(list, hooks.iter().flatten(), &mut found);
        }
    }
    found
}

fn each_hook<'h>(list: &str, hooks: impl Iterator<Item = &'h Hook>, found: &mut Vec<Diagnostic>) {
    for (i, hook) in hooks.enumerate().filter(|(_, hook)| hook.path().has_root()) {
        look_for(&format!("hooks.{list}[{i}].path"), hook.path(), Kind::Program, found);
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Any,
    Directory,
    Program,
}

/// Only reads attributes, because opening a file can have side effects.
fn look_for(at: &str, path: &Path, kind: Kind, found: &mut Vec<Diagnostic>) {
    let fits = |meta: &Metadata| match kind {
        Kind::Any => Ok(()),
        Kind::Directory if meta.is_dir() => Ok(()),
        Kind::Directory => Err("is not a directory"),
        Kind::Program if !meta.is_file() => Err("is not a regular file"),
        Kind::Program if meta.permissions().mode() & 0o111 == 0 => Err("is not executable"),
        Kind::Program => Ok(()),
    };
    let problem = match std::fs::metadata(path) {
        Ok(meta) => fits(&meta).err().map(str::to_owned),
        // A path with a NUL byte has no errno, and is a finding of its own.
        Err(error) => error.raw_os_error().map(crate::words::errno_text),
    };
    if let Some(problem) = problem {
        let message = format!("{}: {problem}", path.display());
        found.push(Diagnostic::new(at, message).with_code(Code::NotFound));
    }
}
