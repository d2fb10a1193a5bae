//! `cargo xtask tidy`: the invariants that a program can check.
//!
//! Reads the sources as text: no compiler, no build, done in a second. Each rule's message says what to
//! do instead, and why. Rules that need more than one file stand in [`across`], those about a package's
//! dependencies in [`manifest`], all others in [`rules`].

mod across;
pub mod manifest;
mod rules;
mod source;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};

use crate::workspace::Workspace;
use source::Source;

/// Directories with Rust of ours.
const ROOTS: &[&str] = &["crates", "fuzz", "tests", "xtask"];

/// Something that has to be otherwise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Relative to the root of the checkout.
    pub path: PathBuf,
    /// Counted from 1.
    pub line: usize,
    /// What is wrong, and the way out.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.message)
    }
}

/// Prints the findings; fails when there are any.
pub fn run(workspace: &Workspace) -> Result<ExitCode> {
    let findings = check(&workspace.root)?;
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => println!("tidy"),
        1 => println!("1 thing to tidy"),
        n => println!("{n} things to tidy"),
    }
    Ok(if findings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// All findings in a checkout, by path and line.
pub fn check(root: &Path) -> Result<Vec<Finding>> {
    let mut paths = Vec::new();
    for directory in ROOTS {
        collect(&root.join(directory), &mut paths)?;
    }
    paths.sort();
    let mut sources = Vec::new();
    let mut findings = Vec::new();
    for path in &paths {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let relative = path.strip_prefix(root).unwrap_or(path);
        if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(Source::read(relative, &text));
        } else {
            manifest::check(relative, &text, &mut findings);
        }
    }
    across::mark_test_modules(&mut sources);
    for source in &sources {
        rules::check(source, &mut findings);
    }
    across::check(&sources, &mut findings);
    findings.sort();
    Ok(findings)
}

fn collect(directory: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry
            .with_context(|| format!("list {}", directory.display()))?
            .path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            if !matches!(name, "target" | "corpus" | "artifacts") && !name.starts_with('.') {
                collect(&path, paths)?;
            }
        } else if name.ends_with(".rs") || name == "Cargo.toml" {
            paths.push(path);
        }
    }
    Ok(())
}

/// The crates whose code decides: no I/O, no clock, no randomness.
fn is_pure(path: &Path) -> bool {
    [
        "types", "model", "bgp", "babel", "wg", "mesh", "autoconf", "bfd",
    ]
    .iter()
    .any(|name| path.starts_with(Path::new("crates").join(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkout_is_walked_and_its_findings_sorted() {
        let root = std::env::temp_dir().join(format!("xtask-tidy-{}", std::process::id()));
        let src = root.join("crates/bgp/src");
        fs::create_dir_all(&src).unwrap();
        fs::create_dir_all(root.join("crates/bgp/target")).unwrap();
        fs::write(root.join("crates/bgp/target/gen.rs"), "no header\n").unwrap();
        fs::write(
            root.join("crates/bgp/Cargo.toml"),
            "[dependencies]\ntokio = \"1\"\n",
        )
        .unwrap();
        fs::write(
            src.join("lib.rs"),
            "//! Engine.\n#[cfg(test)]\nmod sim;\nmod wire;\n",
        )
        .unwrap();
        fs::write(
            src.join("sim.rs"),
            "//! Simulation.\nfn f() { g().unwrap(); }\n",
        )
        .unwrap();
        fs::write(src.join("wire.rs"), "fn f() { g().unwrap(); }\n").unwrap();
        let found: Vec<String> = check(&root)
            .unwrap()
            .iter()
            .map(|finding| format!("{}:{}", finding.path.display(), finding.line))
            .collect();
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(
            found,
            [
                "crates/bgp/Cargo.toml:2",
                "crates/bgp/src/wire.rs:1",
                "crates/bgp/src/wire.rs:1"
            ]
        );
    }

    #[test]
    fn this_checkout_is_walked() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut paths = Vec::new();
        collect(&root.join("xtask"), &mut paths).unwrap();
        assert!(
            paths
                .iter()
                .any(|path| path.ends_with("xtask/src/tidy/mod.rs"))
        );
    }
}
