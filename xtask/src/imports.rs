//! `cargo xtask imports`: circles of imports between the files of a crate, of which there are to be none.
//!
//! A file that imports what another one re-exports imports the file that defines it. Tests are left out.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use petgraph::algo::tarjan_scc;
use petgraph::graphmap::DiGraphMap;
use syn::{Item, ItemMod, Meta, UseTree, Visibility};

use crate::shell;

/// The crates, by their folders.
const CRATES: [&str; 6] = [
    "bench",
    "sockleak",
    "sockleak-core",
    "sockleak-ebpf",
    "sockleak-kernel",
    "xtask",
];

pub fn run() -> Result<()> {
    let mut circles = Vec::new();
    let mut files = 0;
    for name in CRATES {
        for root in ["lib.rs", "main.rs"] {
            let root = shell::repository().join(name).join("src").join(root);
            if root.exists() {
                let house = House::read(&root)?;
                files += house.modules.len();
                circles.extend(house.circles());
            }
        }
    }
    ensure!(
        circles.is_empty(),
        "these files import each other: give what both need a file of its own\n  {}",
        circles.join("\n  ")
    );
    eprintln!("no circle of imports in {files} modules");
    Ok(())
}

/// A module by the names that lead to it from the root.
type Name = Vec<String>;

#[derive(Default)]
struct Module {
    file: PathBuf,
    /// Imports, as whole names from the root.
    imports: Vec<Name>,
    /// What it re-exports, by the name under which it does.
    exports: HashMap<String, Name>,
}

/// The modules of a crate.
#[derive(Default)]
struct House {
    modules: BTreeMap<Name, Module>,
}

impl House {
    fn read(root: &Path) -> Result<Self> {
        let mut house = Self::default();
        house.add_file(Vec::new(), root, root.parent().unwrap_or(root))?;
        Ok(house)
    }

    /// Adds the module of a file, whose children lie in that folder.
    fn add_file(&mut self, name: Name, file: &Path, folder: &Path) -> Result<()> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let parsed = syn::parse_file(&text).with_context(|| format!("cannot parse {}", file.display()))?;
        self.add_items(name, file, folder, &parsed.items)
    }

    fn add_items(&mut self, name: Name, file: &Path, folder: &Path, items: &[Item]) -> Result<()> {
        let mut module = Module {
            file: file.to_owned(),
            ..Module::default()
        };
        for item in items {
            match item {
                Item::Use(import) => {
                    let is_export = !matches!(import.vis, Visibility::Inherited);
                    for (known_as, path) in leaves(&import.tree, &name, &[]) {
                        if is_export {
                            module.exports.insert(known_as, path);
                        } else {
                            module.imports.push(path);
                        }
                    }
                }
                Item::Mod(child) if !is_test(child) => self.add_child(&name, (file, folder), child)?,
                _ => {}
            }
        }
        self.modules.insert(name, module);
        Ok(())
    }

    fn add_child(&mut self, parent: &Name, (file, folder): (&Path, &Path), child: &ItemMod) -> Result<()> {
        let ident = child.ident.to_string();
        let name: Name = parent.iter().cloned().chain([ident.clone()]).collect();
        let inner = folder.join(&ident);
        if let Some((_, items)) = &child.content {
            return self.add_items(name, file, &inner, items);
        }
        // A file by another path is shared by several crates, and imports nothing of this one.
        if child
            .attrs
            .iter()
            .any(|attribute| attribute.path().is_ident("path"))
        {
            return Ok(());
        }
        let alone = folder.join(format!("{ident}.rs"));
        let found = if alone.exists() {
            alone
        } else {
            inner.join("mod.rs")
        };
        self.add_file(name, &found, &inner)
    }

    /// The file that defines what has this name: that of the innermost known module on the way to it. For a name of another
    /// crate this is the module that imports it, or one that re-exports it.
    fn file_of(&self, name: &[String], depth: u32) -> &Path {
        // The longest part that is a module, which the root always is, and what is looked for in it.
        let is_module = |place: &usize| self.modules.contains_key(&name[..*place]);
        let place = (0..=name.len()).rev().find(is_module).unwrap_or_default();
        let module = &self.modules[&name[..place]];
        let exported = name.get(place).and_then(|item| module.exports.get(item));
        let target = exported.map(|target| [target.as_slice(), &name[place + 1..]].concat());
        match target {
            Some(target) if depth > 0 => self.file_of(&target, depth - 1),
            _ => &module.file,
        }
    }

    fn circles(&self) -> Vec<String> {
        /// No re-export leads through more.
        const DEPTH: u32 = 8;
        let mut graph = DiGraphMap::<&Path, ()>::new();
        for module in self.modules.values() {
            let imported = module.imports.iter().map(|name| self.file_of(name, DEPTH));
            for file in imported.filter(|file| *file != module.file) {
                graph.add_edge(module.file.as_path(), file, ());
            }
        }
        let circles = tarjan_scc(&graph).into_iter().filter(|files| files.len() > 1);
        circles.map(|files| named(&files)).collect()
    }
}

fn named(files: &[&Path]) -> String {
    let repository = shell::repository();
    let names = files
        .iter()
        .map(|file| file.strip_prefix(repository).unwrap_or(file));
    let mut names: Vec<String> = names.map(|name| name.display().to_string()).collect();
    names.sort();
    names.join(", ")
}

/// The last names of an import and what each stands for, as [`whole`] says.
fn leaves(tree: &UseTree, module: &Name, before: &[String]) -> Vec<(String, Name)> {
    let with = |ident: &syn::Ident| [before, &[ident.to_string()]].concat();
    match tree {
        UseTree::Path(path) => leaves(&path.tree, module, &with(&path.ident)),
        UseTree::Group(group) => group
            .items
            .iter()
            .flat_map(|tree| leaves(tree, module, before))
            .collect(),
        UseTree::Name(name) => whole(&with(&name.ident), module)
            .map(|path| (name.ident.to_string(), path))
            .into_iter()
            .collect(),
        UseTree::Rename(rename) => whole(&with(&rename.ident), module)
            .map(|path| (rename.rename.to_string(), path))
            .into_iter()
            .collect(),
        UseTree::Glob(_) => whole(before, module)
            .map(|path| ("*".to_owned(), path))
            .into_iter()
            .collect(),
    }
}

/// A path from the root of the crate. What begins with none of the three words is of a child of the module or of another
/// crate, whose names are taken for those of a child that is not there. `None` for what lies above the root.
fn whole(path: &[String], module: &Name) -> Option<Name> {
    let mut path = path.to_vec();
    if path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    let (first, rest) = path.split_first()?;
    let mut base = match first.as_str() {
        "crate" => Vec::new(),
        "self" => module.clone(),
        "super" => module[..module.len().checked_sub(1)?].to_vec(),
        child => module.iter().cloned().chain([child.to_owned()]).collect(),
    };
    for name in rest {
        if name == "super" {
            base.pop();
        } else {
            base.push(name.clone());
        }
    }
    Some(base)
}

fn is_test(module: &ItemMod) -> bool {
    module.attrs.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => list.tokens.to_string().contains("test"),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The circles of a crate with these files, by their paths below `src`.
    fn circles(files: &[(&str, &str)]) -> usize {
        let folder = tempfile::tempdir().expect("a place for a crate");
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("it can be made");
            fs::write(path, text).expect("it can be written");
        }
        House::read(&folder.path().join("lib.rs"))
            .expect("it parses")
            .circles()
            .len()
    }

    const ROOT: (&str, &str) = ("lib.rs", "mod a; mod b;");

    #[test]
    fn two_files_that_import_each_other_are_a_circle() {
        assert_eq!(
            circles(&[ROOT, ("a.rs", "use crate::b::B;"), ("b.rs", "use super::a::A;")]),
            1
        );
        assert_eq!(
            circles(&[ROOT, ("a.rs", "use crate::b::B;"), ("b.rs", "use std::fmt;")]),
            0
        );
    }

    #[test]
    fn a_re_export_is_an_import_of_what_it_names() {
        let room = (
            "a/mod.rs",
            "mod one; mod two; pub use one::One; pub use self::two::Two;",
        );
        let one = ("a/one.rs", "");
        assert_eq!(
            circles(&[ROOT, room, one, ("a/two.rs", "use crate::a::One;"), ("b.rs", "")]),
            0
        );
        let one = ("a/one.rs", "use super::Two;");
        assert_eq!(
            circles(&[ROOT, room, one, ("a/two.rs", "use crate::a::One;"), ("b.rs", "")]),
            1
        );
    }

    #[test]
    fn tests_may_import_what_they_test() {
        let a = (
            "a.rs",
            "use crate::b::B; #[cfg(test)] mod tests { use crate::b::C; }",
        );
        let b = ("b.rs", "#[cfg(test)] mod tests { use crate::a::A; }");
        assert_eq!(circles(&[ROOT, a, b]), 0);
    }
}
