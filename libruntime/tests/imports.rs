//! No file of the library imports, through others, itself. Needs no root and builds nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Module names, as `plan::mounts`, with the text of their files.
type Modules = BTreeMap<String, String>;
type Imports<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

fn modules() -> Modules {
    let mut found = Modules::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut found);
    assert!(found.len() > 100, "only {} modules", found.len());
    found
}

/// Without `lib.rs`, which names all, and without tests.
fn collect(directory: &Path, above: &str, found: &mut Modules) {
    for entry in fs::read_dir(directory).expect("it is there").flatten() {
        let path = entry.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if name == "lib" || name.contains("test") {
            continue;
        }
        let module = if above.is_empty() { name } else { format!("{above}::{name}") };
        if path.is_dir() {
            collect(&path, &module, found);
        } else {
            let text = fs::read_to_string(&path).expect("it can be read");
            found.insert(module, without_comments_and_tests(&text));
        }
    }
}

fn without_comments_and_tests(text: &str) -> String {
    let text = text
        .find("#[cfg(test)]\nmod tests {")
        .or(text.find("#[cfg(test)]\npub"))
        .map_or(text, |at| &text[..at]);
    // What a module exports of its children, it need not use.
    let is_export = |line: &&str| line.starts_with("pub") && line.contains(" use ");
    let lines = text.lines().filter(|line| !is_export(line));
    lines.map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// `a::{b, c::{d}}` as `a::b` and `a::c::d`.
fn flat(path: &str) -> Vec<String> {
    let Some((before, list)) = path.split_once('{') else { return vec![path.trim().into()] };
    let list = list.trim_end().strip_suffix('}').unwrap_or(list);
    let (mut parts, mut depth, mut from) = (Vec::new(), 0, 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&list[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[from..]);
    let before = before.trim();
    parts.iter().flat_map(|part| flat(part.trim())).map(|part| format!("{before}{part}")).collect()
}

/// All paths of the crate that a file names, from the crate's root.
fn paths(module: &str, text: &str) -> Vec<String> {
    let mut all = Vec::new();
    for (at, _) in text.match_indices("crate::").chain(text.match_indices("super::")) {
        // The inner ones of `super::super::` come with the outer.
        if text[..at].ends_with("::") {
            continue;
        }
        let imported = text[..at].trim_end().ends_with("use");
        let ends = |c: char| if imported { c == ';' } else { !(c.is_alphanumeric() || c == '_' || c == ':') };
        let path = &text[at..][..text[at..].find(ends).unwrap_or(0)];
        all.extend(flat(path).iter().map(|path| from_root(module, path)));
    }
    all
}

fn from_root(module: &str, path: &str) -> String {
    if let Some(path) = path.strip_prefix("crate::") {
        return path.into();
    }
    let (mut above, mut path) = (module, path);
    while let Some(rest) = path.strip_prefix("super::") {
        above = above.rsplit_once("::").map_or("", |(above, _)| above);
        path = rest;
    }
    format!("{above}::{path}").trim_start_matches("::").into()
}

/// The module that a path leads to: the longest part of it that is one.
fn target<'a>(modules: &'a Modules, path: &str) -> Option<&'a str> {
    let mut path = path;
    loop {
        if let Some((name, _)) = modules.get_key_value(path) {
            return Some(name);
        }
        path = path.rsplit_once("::")?.0;
    }
}

fn imports(modules: &Modules) -> Imports<'_> {
    let mut all = Imports::new();
    for (module, text) in modules {
        let mut names: BTreeSet<&str> =
            paths(module, text).iter().filter_map(|path| target(modules, path)).collect();
        // Its own children, which it may name without a path.
        let is_child = |child: &&String| child.rsplit_once("::").is_some_and(|(above, _)| above == module);
        for child in modules.keys().filter(is_child) {
            let short = child.rsplit_once("::").map_or(child.as_str(), |(_, name)| name);
            let called = |(at, _): (usize, &str)| {
                !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
            };
            if text.match_indices(&format!("{short}::")).any(called) {
                names.insert(child);
            }
        }
        names.remove(module.as_str());
        all.insert(module, names);
    }
    all
}

/// The modules that can be reached from one.
fn reached<'a>(imports: &Imports<'a>, from: &str) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let mut next: Vec<&str> = imports.get(from).into_iter().flatten().copied().collect();
    while let Some(module) = next.pop() {
        if seen.insert(module) {
            next.extend(imports.get(module).into_iter().flatten());
        }
    }
    seen
}

/// Each module that reaches itself, with those of its imports that lead back.
fn circles(modules: &Modules) -> Vec<String> {
    let imports = imports(modules);
    let leads_back = |module: &str| -> Vec<&str> {
        let back = |other: &&&str| reached(&imports, other).contains(module);
        imports[module].iter().filter(back).copied().collect()
    };
    let all = modules.keys().map(|module| (module, leads_back(module)));
    all.filter(|(_, back)| !back.is_empty())
        .map(|(module, back)| format!("{module} -> {}", back.join(", ")))
        .collect()
}

#[test]
fn no_module_imports_itself_through_others() {
    let found = circles(&modules());
    assert!(found.is_empty(), "modules in a circle of imports:\n  {}", found.join("\n  "));
}

#[test]
fn a_circle_is_found_by_every_form_of_import() {
    let of = |texts: &[(&str, &str)]| -> Modules {
        texts.iter().map(|(name, text)| (name.to_string(), without_comments_and_tests(text))).collect()
    };
    let circle = of(&[
        ("a", "use crate::{x::Y, b::{self, C}};"),
        ("b", "fn f() { c::g() }"),
        ("b::c", "use std::fs;\nfn g() -> super::super::d::T {}"),
        ("d", "impl T { fn h() { crate::a::run() } }"),
        ("e", "use crate::a::A;"),
    ]);
    assert_eq!(circles(&circle), ["a -> b", "b -> b::c", "b::c -> d", "d -> a"]);
    let line = of(&[
        ("a", "use crate::b::B; // crate::c"),
        ("b", "use crate::c;"),
        ("c", "#[cfg(test)]\nmod tests {\n use crate::a;\n}"),
    ]);
    assert_eq!(circles(&line), [""; 0]);
}
