//! The public interface as a list, `api.txt`, so that a change to it is seen in the change that makes it.
//! `UPDATE_API=1 cargo test -p libruntime --test api` writes the list anew.
//!
//! Reads the sources and builds nothing. What `lib.rs` exports is listed with its public fields, variants, functions and
//! traits; items that are hidden from the documentation are not.

use quote::ToTokens;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use syn::{Fields, ImplItem, Item, UseTree, Visibility};

struct Source {
    /// Such as `cgroup/stats`.
    name: String,
    items: Vec<Item>,
}

fn sources(directory: &Path, root: &Path, into: &mut Vec<Source>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, root, into);
        } else if let Some(name) = path.to_str().and_then(|path| path.strip_suffix(".rs")) {
            let name = Path::new(name).strip_prefix(root).unwrap().display().to_string();
            let text = fs::read_to_string(&path).unwrap();
            let items = syn::parse_file(&text).unwrap_or_else(|error| panic!("{name}: {error}")).items;
            into.push(Source { name, items });
        }
    }
}

/// Tokens without most of the blanks between them.
fn shown(tokens: &impl ToTokens) -> String {
    let mut text = tokens.to_token_stream().to_string();
    for (from, to) in [
        (" :: ", "::"),
        (" ::", "::"),
        (":: ", "::"),
        ("< ", "<"),
        (" <", "<"),
        (" >", ">"),
        (" ,", ","),
        ("& ", "&"),
        (" : ", ": "),
        ("( ", "("),
        (" )", ")"),
        (" (", "("),
        ("' ", "'"),
        ("->", " -> "),
        ("  ", " "),
        (",)", ")"),
    ] {
        text = text.replace(from, to);
    }
    text
}

fn is_hidden(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|one| one.to_token_stream().to_string().contains("hidden"))
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn marks(attributes: &[syn::Attribute]) -> String {
    let mark = |one: &syn::Attribute| match one.path().get_ident()?.to_string().as_str() {
        "non_exhaustive" => Some("#[non_exhaustive] ".to_owned()),
        "derive" => Some(format!("{} ", shown(one).replace("# [", "#["))),
        _ => None,
    };
    attributes.iter().filter_map(mark).collect()
}

/// The name that a `use` exports, below the module that it is in.
fn exported(tree: &UseTree, way: &str, into: &mut Vec<(String, String)>) {
    match tree {
        UseTree::Path(path) => exported(&path.tree, &format!("{way}{}/", path.ident), into),
        UseTree::Group(group) => group.items.iter().for_each(|tree| exported(tree, way, into)),
        UseTree::Name(name) => into.push((way.to_owned(), name.ident.to_string())),
        UseTree::Rename(name) => into.push((way.to_owned(), name.ident.to_string())),
        UseTree::Glob(_) => into.push((way.to_owned(), "*".into())),
    }
}

fn name_and_visibility(item: &Item) -> Option<(String, bool)> {
    let (name, visibility) = match item {
        Item::Struct(item) => (&item.ident, &item.vis),
        Item::Enum(item) => (&item.ident, &item.vis),
        Item::Type(item) => (&item.ident, &item.vis),
        Item::Const(item) => (&item.ident, &item.vis),
        Item::Fn(item) => (&item.sig.ident, &item.vis),
        _ => return None,
    };
    Some((name.to_string(), is_public(visibility)))
}

/// One exported item, with what belongs to it.
fn list(sources: &[Source], way: &str, name: &str, prefix: &str, lines: &mut BTreeSet<String>) {
    let defines = |source: &&Source| {
        source.items.iter().any(|item| name_and_visibility(item) == Some((name.to_owned(), true)))
    };
    let first = way.split('/').next().unwrap_or_default();
    let all: Vec<&Source> = sources.iter().filter(defines).collect();
    let near = all.iter().find(|source| source.name.split('/').next() == Some(first));
    let Some(source) = near.or(all.first()) else {
        // A module of named parts.
        let module = sources.iter().find(|source| source.name == format!("{way}{name}"));
        let Some(module) = module else {
            lines.insert(format!("use {}{name}", way.replace('/', "::")));
            return;
        };
        for item in &module.items {
            if let Some((item, true)) = name_and_visibility(item) {
                list(sources, &format!("{way}{name}/"), &item, &format!("{name}::"), lines);
            }
        }
        return;
    };
    for item in &source.items {
        if name_and_visibility(item) == Some((name.to_owned(), true)) {
            declare(item, &format!("{prefix}{name}"), lines);
        }
    }
    for other in sources {
        // Another type of that name is another type.
        let is_other = other.name != source.name
            && other.items.iter().any(|item| name_and_visibility(item).is_some_and(|(own, _)| own == name));
        if !is_other {
            implemented(other, name, &format!("{prefix}{name}"), lines);
        }
    }
}

fn declare(item: &Item, path: &str, lines: &mut BTreeSet<String>) {
    match item {
        Item::Struct(item) => {
            lines.insert(format!("{path}: {}struct{}", marks(&item.attrs), shown(&item.generics)));
            fields(&item.fields, path, true, lines);
        }
        Item::Enum(item) => {
            lines.insert(format!("{path}: {}enum{}", marks(&item.attrs), shown(&item.generics)));
            for variant in &item.variants {
                let way = format!("{path}::{}", variant.ident);
                lines.insert(format!("{way}: {}variant", marks(&variant.attrs)));
                fields(&variant.fields, &way, false, lines);
            }
        }
        Item::Type(item) => drop(lines.insert(format!("{path}: type = {}", shown(&item.ty)))),
        Item::Const(item) => drop(lines.insert(format!("{path}: const {}", shown(&item.ty)))),
        Item::Fn(item) => drop(lines.insert(format!("{path}: {}", shown(&item.sig)))),
        _ => {}
    }
}

fn fields(fields: &Fields, path: &str, with_visibility: bool, lines: &mut BTreeSet<String>) {
    for (at, field) in fields.iter().enumerate() {
        if !with_visibility || is_public(&field.vis) {
            let name = field.ident.as_ref().map_or(at.to_string(), ToString::to_string);
            lines.insert(format!("{path}.{name}: {}", shown(&field.ty)));
        }
    }
}

fn implemented(source: &Source, name: &str, path: &str, lines: &mut BTreeSet<String>) {
    for item in &source.items {
        let Item::Impl(block) = item else { continue };
        let syn::Type::Path(own) = &*block.self_ty else { continue };
        if own.path.segments.last().is_none_or(|last| last.ident != name) || is_hidden(&block.attrs) {
            continue;
        }
        if let Some((_, of, _)) = &block.trait_ {
            lines.insert(format!("{path}: impl {}", shown(of)));
            continue;
        }
        for part in &block.items {
            match part {
                ImplItem::Fn(one) if is_public(&one.vis) && !is_hidden(&one.attrs) => {
                    lines.insert(format!("{path}::{}: {}", one.sig.ident, shown(&one.sig)));
                }
                ImplItem::Const(one) if is_public(&one.vis) => {
                    lines.insert(format!("{path}::{}: const {}", one.ident, shown(&one.ty)));
                }
                _ => {}
            }
        }
    }
}

fn listing(root: &Path) -> String {
    let mut all = Vec::new();
    sources(&root.join("src"), &root.join("src"), &mut all);
    let library = all.iter().find(|source| source.name == "lib").expect("src/lib.rs");
    let mut lines = BTreeSet::new();
    for item in &library.items {
        let Item::Use(item) = item else { continue };
        if is_public(&item.vis) && !is_hidden(&item.attrs) {
            let mut names = Vec::new();
            exported(&item.tree, "", &mut names);
            names.iter().for_each(|(way, name)| list(&all, way, name, "", &mut lines));
        }
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

#[test]
fn the_public_interface_is_the_listed_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (listed, found) = (root.join("api.txt"), listing(root));
    if std::env::var_os("UPDATE_API").is_some() {
        return fs::write(listed, found).unwrap();
    }
    let expected = fs::read_to_string(listed).unwrap_or_default();
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (expected, found) = (lines(&expected), lines(&found));
    let added: Vec<_> = found.difference(&expected).collect();
    let removed: Vec<_> = expected.difference(&found).collect();
    assert!(
        added.is_empty() && removed.is_empty(),
        "the public interface has changed; UPDATE_API=1 lists it anew, CHANGELOG.md tells of it\nadded: {added:#?}\nremoved: {removed:#?}"
    );
    // What everybody uses is seen.
    for known in
        ["Runtime::new: ", "Container::start: ", "ErrorKind::Os: ", "stats::Stats", "Diagnostic.code: "]
    {
        assert!(found.iter().any(|line| line.starts_with(known)), "{known} is not listed");
    }
}
