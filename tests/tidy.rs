//! The layout rules of the code, checked as text. Each failure says what to do instead.
//!
//! `MAY_USE` is the truth about which module may use which; everything else here is a rule of form.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules under `src/` in reading order, and what each may name behind `crate::`. A row uses rows above it, never one
/// below, and no more than stands here: what decides does not know what carries, and text for people knows neither.
const MAY_USE: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("config", &["types"]),
    ("wire", &["types"]),
    ("tree", &["types", "wire"]),
    ("storage", &["types", "wire", "tree"]),
    ("zab", &["types", "config", "wire"]),
    ("shard", &["types", "wire", "tree"]),
    ("server", &["types", "config", "wire", "tree", "storage", "zab", "shard"]),
    // What shards tell is a part of the server's `Status`.
    ("ops", &["types", "config", "shard", "server"]),
    ("sim", &["types", "config", "wire", "tree", "storage", "zab", "shard", "server", "ops"]),
    ("io", &["types", "config", "wire", "tree", "storage", "zab", "shard", "server", "ops"]),
    ("load", &["types", "wire", "io"]),
    ("dev", &["types", "config"]),
];

/// Files at the top of `src/`: they put everything together, so they may use everything.
const TOP: &[&str] = &["lib.rs", "main.rs", "cli.rs"];

/// Where `allow(unsafe_code)` may stand: what talks to the kernel, the shared versions of the tree, and the test whose
/// allocator counts.
const MAY_BE_UNSAFE: &[&str] = &["src/io/", "src/tree/", "tests/alloc.rs"];

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;
const MOD_DOC_LINES_MIN: usize = 4;

struct Source {
    /// Relative to the repository.
    path: String,
    text: String,
}

impl Source {
    /// The module under `src/` that the file belongs to; `None` for the files of `TOP` and outside `src/`.
    fn module(&self) -> Option<&str> {
        let (module, _) = self.path.strip_prefix("src/")?.split_once('/')?;
        Some(module)
    }

    /// Line numbers and lines, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(i, line)| (i + 1, line.split("//").next().unwrap_or("")))
    }

    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(i, line)| (i + 1, line))
    }
}

fn root() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo tells tests where the manifest is"))
}

fn collect(directory: &Path, root: &Path, sources: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.ends_with("tests/fuzz/target") {
            continue;
        }
        if path.is_dir() {
            collect(&path, root, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let relative = path.strip_prefix(root).expect("found below the root");
            let text = fs::read_to_string(&path).expect("source is UTF-8");
            sources.push(Source { path: relative.display().to_string(), text });
        }
    }
}

/// Every Rust file of the crate but this one, whose rules look like what they forbid.
fn sources() -> Vec<Source> {
    let root = root();
    let mut sources = Vec::new();
    for directory in ["src", "tests", "benches"] {
        collect(&root.join(directory), &root, &mut sources);
    }
    sources.retain(|source| source.path != "tests/tidy.rs");
    sources
}

/// Fails with all offences at once: each a place, a text and what to do.
#[derive(Default)]
struct Offences(String);

impl Offences {
    fn add(&mut self, path: &str, line: usize, what: &str, instead: &str) {
        writeln!(self.0, "{path}:{line}: {}\n    {instead}", what.trim()).expect("a string takes all");
    }

    fn check(self) {
        assert!(self.0.is_empty(), "\n{}", self.0);
    }
}

/// First names of all paths that begin with `prefix` in `code`: `crate::a::b` names `a`, `crate::{a::b, c}` both.
fn first_names<'a>(code: &'a str, prefix: &str) -> Vec<&'a str> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let name = |text: &'a str| text.split(|c| !is_name(c)).next().unwrap_or("");
    let mut names = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        if code[..at].ends_with(is_name) {
            continue; // the end of another word
        }
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            None => names.push(name(rest)),
            Some(group) => {
                let mut depth = 0;
                let mut start = true;
                for (i, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        c if start && is_name(c) => {
                            names.push(name(&group[i..]));
                            start = false;
                        }
                        _ => (),
                    }
                }
            }
        }
    }
    names
}

/// Names of other rows that a file reaches, each with its line.
fn rows_used(source: &Source) -> Vec<(usize, String)> {
    let is_row = |name: &&str| MAY_USE.iter().any(|(row, _)| row == name);
    let mut used = Vec::new();
    for (number, line) in source.code() {
        // A group may go on over lines, so hand over the rest of the file where one opens.
        let mut code = line.to_owned();
        if line.contains("crate::{") && !line.contains('}') {
            code = source.code().skip(number - 1).take_while(|(_, l)| !l.contains(';')).map(|(_, l)| l).collect();
        }
        let up = ["super::super::", "super::super::super::", "super::super::super::super::"];
        for prefix in ["crate::"].into_iter().chain(up) {
            used.extend(
                first_names(&code, prefix).iter().filter(|name| is_row(name)).map(|n| (number, (*n).to_owned())),
            );
        }
    }
    used
}

#[test]
fn modules_use_only_what_the_table_allows() {
    let mut offences = Offences::default();
    for source in sources().iter().filter(|source| source.path.starts_with("src/")) {
        let Some(module) = source.module() else {
            let name = source.path.trim_start_matches("src/");
            if !TOP.contains(&name) {
                offences.add(&source.path, 1, "a file of its own at the top", "put it into the module it belongs to");
            }
            continue;
        };
        let Some((_, allowed)) = MAY_USE.iter().find(|(row, _)| *row == module) else {
            offences.add(
                &source.path,
                1,
                "a module without a row",
                "add it to MAY_USE in tests/tidy.rs, or to an old one",
            );
            continue;
        };
        for (number, used) in rows_used(source) {
            if used != module && !allowed.contains(&used.as_str()) {
                let instead = format!(
                    "`{module}` may use {allowed:?}: pass a value in, return one, or move the type up to a row both may use"
                );
                offences.add(&source.path, number, &format!("`{module}` uses `{used}`"), &instead);
            }
        }
    }
    offences.check();
}

#[test]
fn the_table_itself_points_upwards() {
    for (i, (row, allowed)) in MAY_USE.iter().enumerate() {
        for used in *allowed {
            assert!(MAY_USE[..i].iter().any(|(above, _)| above == used), "{row} may use {used}, which is not above it");
        }
    }
}

#[test]
fn files_and_functions_fit_the_mind() {
    let mut offences = Offences::default();
    for source in sources() {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            let instead = format!("at most {FILE_LINES_MAX}: find the noun that wants to leave");
            offences.add(&source.path, lines, &format!("{lines} lines"), &instead);
        }
        for (number, name, length) in functions(&source.text) {
            if length > FUNCTION_LINES_MAX {
                let instead = format!("at most {FUNCTION_LINES_MAX}: give its parts names");
                offences.add(&source.path, number, &format!("fn {name} has {length} lines"), &instead);
            }
        }
    }
    offences.check();
}

/// Line, name and length of every function with a body. Relies on rustfmt: the body ends at the first `}` that
/// stands as far in as the `fn`.
fn functions(text: &str) -> Vec<(usize, &str, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = &line[..line.len() - code.len()];
        let Some(name) = function_name(code) else { continue };
        let end = lines[start..].iter().position(|line| {
            let Some(rest) = line.strip_prefix(indent) else { return false };
            let declared = rest.ends_with(';') && !rest.starts_with(' ') && !rest.contains('{');
            let on_one_line = rest.contains('{') && rest.ends_with('}') && function_name(rest).is_some();
            rest.starts_with('}') || declared || on_one_line
        });
        found.push((start + 1, name, end.map_or(1, |end| end + 1)));
    }
    found
}

fn function_name(code: &str) -> Option<&str> {
    let mut rest = code;
    if let Some(public) = rest.strip_prefix("pub") {
        rest = match public.strip_prefix('(') {
            Some(scope) => scope.split_once(") ")?.1,
            None => public.strip_prefix(' ')?,
        };
    }
    for keyword in ["const ", "async ", "unsafe ", "extern \"C\" "] {
        rest = rest.strip_prefix(keyword).unwrap_or(rest);
    }
    rest.strip_prefix("fn ")?.split(['(', '<']).next()
}

#[test]
fn each_name_has_one_path_and_each_module_says_what_it_is() {
    let mut offences = Offences::default();
    for source in sources() {
        for (number, line) in source.code() {
            let code = line.trim();
            if code.starts_with("pub") && code.contains("use ") && code.contains("::*") {
                offences.add(&source.path, number, line, "name what is exported, or let users name where it lives");
            }
        }
        if ["/utils.rs", "/utils/mod.rs", "/util.rs", "/helpers.rs", "/common.rs"]
            .iter()
            .any(|end| source.path.ends_with(end))
        {
            offences.add(&source.path, 1, "a drawer for everything", "name the file after the one idea in it");
        }
        if source.path.starts_with("src/") && source.path.ends_with("/mod.rs") {
            let doc = source.text.lines().take_while(|line| line.starts_with("//!")).count();
            if doc < MOD_DOC_LINES_MIN {
                let instead =
                    "open with four `//!` lines: what this is, what it never does, which core owns it, where to start";
                offences.add(&source.path, 1, &format!("{doc} lines of documentation"), instead);
            }
        }
    }
    offences.check();
}

#[test]
fn nothing_is_left_for_later_without_saying_where() {
    let mut offences = Offences::default();
    for source in sources() {
        for (number, line) in source.lines() {
            for mark in ["TODO", "FIXME", "XXX"] {
                let marked = line.match_indices(mark).any(|(at, _)| {
                    let letter = |c: char| c.is_alphanumeric() || c == '_';
                    !line[..at].ends_with(letter) && !line[at + mark.len()..].starts_with(letter)
                });
                if marked && !names_an_issue(line) {
                    offences.add(&source.path, number, line, "name its issue as `TODO(#12)`, or do it now");
                }
            }
            if line.trim_start().starts_with("#[ignore") {
                offences.add(&source.path, number, line, "assert the wrong behaviour as it is, with a note, or fix it");
            }
        }
    }
    offences.check();
}

/// `#12` or `ZOOKEEPER-1277`.
fn names_an_issue(line: &str) -> bool {
    ["#", "ZOOKEEPER-"].iter().any(|mark| {
        line.match_indices(mark).any(|(at, _)| line[at + mark.len()..].starts_with(|c: char| c.is_ascii_digit()))
    })
}

#[test]
fn unsafe_code_stays_where_it_was_measured_to_be_worth_it() {
    let mut offences = Offences::default();
    for source in &sources() {
        for (number, line) in source.code() {
            if line.contains("allow(unsafe_code)") && !MAY_BE_UNSAFE.iter().any(|place| source.path.starts_with(place))
            {
                let instead =
                    "only the modules of MAY_BE_UNSAFE in tests/tidy.rs: give io/ or tree/ a safe function for it";
                offences.add(&source.path, number, line, instead);
            }
        }
    }
    offences.check();
}

#[test]
fn every_dependency_carries_its_reason() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml is readable");
    let mut offences = Offences::default();
    let mut in_dependencies = false;
    let mut before = "";
    for (i, line) in manifest.lines().enumerate() {
        if line.starts_with('[') {
            // `[dependencies]`, `[target.….dev-dependencies]`, but also the form `[dependencies.name]`.
            in_dependencies = line.trim_end_matches(']').ends_with("dependencies");
            if line.contains("dependencies.") && !before.starts_with('#') {
                offences.add("Cargo.toml", i + 1, line, "say in a comment above it what it is for");
            }
        } else if in_dependencies && line.contains('=') && !line.starts_with([' ', '#']) && !before.starts_with('#') {
            offences.add("Cargo.toml", i + 1, line, "say in a comment above it what it is for");
        }
        before = line;
    }
    offences.check();
}

/// The rules above are read from text; these are the forms that they must see.
mod rules {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into() }
    }

    #[test]
    fn every_way_to_reach_another_module_is_seen() {
        let text = "use crate::wire::jute;\n// use crate::sim::x;\nuse crate::{tree::{a, b}, zab};\n\
                    use crate::{\n    shard::x,\n    server,\n};\nlet x = crate::io::y();\nuse super::super::load::z;\n\
                    use super::tree;\nuse mycrate::ops;\n";
        let used = rows_used(&source("src/types/x.rs", text));
        let names: Vec<_> = used.iter().map(|(line, name)| (*line, name.as_str())).collect();
        let expected = [(1, "wire"), (3, "tree"), (3, "zab"), (4, "shard"), (4, "server"), (8, "io"), (9, "load")];
        assert_eq!(names, expected);
    }

    #[test]
    fn functions_are_measured_from_name_to_brace() {
        let text = "impl A {\n    pub(crate) const fn one() {}\n    async fn two<T>(\n        a: T,\n    ) -> u8 {\n        {\n        }\n    }\n\
                    \n    fn declared(&self);\n}\npub fn last() {\n    x();\n}\n";
        assert_eq!(functions(text), [(2, "one", 1), (3, "two", 6), (10, "declared", 1), (12, "last", 3)]);
    }

    #[test]
    fn issues_have_numbers() {
        assert!(names_an_issue("// TODO(#12): x") && names_an_issue("// TODO ZOOKEEPER-1277"));
        assert!(!names_an_issue("// TODO: #[x]"));
    }
}
