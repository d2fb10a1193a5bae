//! Rules and facts that take more than one file to see.

use std::path::{Path, PathBuf};

use super::{
    Finding,
    source::{Source, has_word, is_test_attribute},
};

/// Constants that say what is ours in the kernel, in the crates that deal with it: each is defined once.
const ONCE: &[&str] = &["PROTOCOL", "TABLE"];
const DEALING: &[&str] = &[
    "crates/model",
    "crates/kernel",
    "crates/agent",
    "crates/hextet",
];

/// Marks files that are tests because a `#[cfg(test)] mod name;` elsewhere brings them in.
pub fn mark_test_modules(sources: &mut [Source]) {
    let mut roots: Vec<PathBuf> = Vec::new();
    for source in sources.iter() {
        roots.extend(test_modules(source));
    }
    for source in sources {
        let inside = |root: &PathBuf| {
            source.path.starts_with(root) || source.path == root.with_extension("rs")
        };
        if roots.iter().any(inside) {
            source.mark_test();
        }
    }
}

/// The paths, without their extension, of the test modules that a file declares.
fn test_modules(source: &Source) -> Vec<PathBuf> {
    let directory = module_directory(&source.path);
    let mut modules = Vec::new();
    for (index, line) in source.lines.iter().enumerate() {
        if !is_test_attribute(&line.code) {
            continue;
        }
        let behind = source.lines.iter().skip(index).take(3);
        let item: String = behind.map(|line| format!("{} ", line.code)).collect();
        let item = item
            .split_once(']')
            .map_or("", |(_, item)| item)
            .trim_start();
        let name = item
            .strip_prefix("pub ")
            .unwrap_or(item)
            .strip_prefix("mod ");
        if let Some((name, _)) = name.and_then(|rest| rest.split_once(';'))
            && !name.contains('{')
        {
            modules.push(directory.join(name.trim()));
        }
    }
    modules
}

/// Where a file's child modules stand.
fn module_directory(path: &Path) -> PathBuf {
    let parent = path.parent().unwrap_or(Path::new(""));
    match path.file_stem().and_then(|stem| stem.to_str()) {
        Some("mod" | "lib" | "main") | None => parent.to_owned(),
        Some(stem) => parent.join(stem),
    }
}

/// Adds what is defined twice though it may be defined once only.
pub fn check(sources: &[Source], findings: &mut Vec<Finding>) {
    for name in ONCE {
        let mut first: Option<&Path> = None;
        for source in sources
            .iter()
            .filter(|source| DEALING.iter().any(|path| source.path.starts_with(path)))
        {
            for (number, line) in source.numbered() {
                let defines = !line.test
                    && has_word(&line.code, "const")
                    && has_word(&line.code, name)
                    && line.code.contains('=');
                if !defines {
                    continue;
                }
                match first {
                    None => first = Some(&source.path),
                    Some(home) => findings.push(Finding {
                        path: source.path.clone(),
                        line: number,
                        message: format!(
                            "{name} is already defined in {}: what marks an object as ours is said in one \
                             place, or the dump and the writer drift apart; use that constant",
                            home.display()
                        ),
                    }),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source::read(Path::new(path), text)
    }

    #[test]
    fn a_mark_is_defined_once() {
        let sources = [
            source("crates/model/src/a.rs", "pub const PROTOCOL: u8 = 7;\n"),
            source(
                "crates/kernel/src/b.rs",
                "use a::PROTOCOL;\nconst PROTOCOL: u8 = 7;\n",
            ),
        ];
        let elsewhere = source(
            "crates/bgp/src/c.rs",
            "const PROTOCOL: u8 = 179;\nconst PROTOCOLS: u8 = 1;\n",
        );
        let sources = [&sources[..], &[elsewhere]].concat();
        let mut findings = Vec::new();
        check(&sources, &mut findings);
        let places: Vec<(&Path, usize)> = findings
            .iter()
            .map(|f| (f.path.as_path(), f.line))
            .collect();
        assert_eq!(places, [(Path::new("crates/kernel/src/b.rs"), 2)]);
    }

    #[test]
    fn files_brought_in_by_a_test_are_tests() {
        let mut sources = [
            source(
                "crates/x/src/lib.rs",
                "mod wire;\n#[cfg(test)]\nmod sim;\n#[cfg(test)] mod pair;\n",
            ),
            source("crates/x/src/sim/net.rs", "fn a() {}\n"),
            source("crates/x/src/pair.rs", "fn a() {}\n"),
            source("crates/x/src/wire.rs", "#[cfg(test)]\nmod vectors;\n"),
            source("crates/x/src/wire/vectors.rs", "fn a() {}\n"),
            source("crates/x/src/wire/open.rs", "fn a() {}\n"),
        ];
        mark_test_modules(&mut sources);
        let marks: Vec<bool> = sources.iter().map(|source| source.lines[0].test).collect();
        assert_eq!(marks, [false, true, true, true, true, false]);
    }
}
