//! Rules about a package's manifest: what the pure crates may not depend on.

use std::path::Path;

use super::{Finding, is_pure};

/// Crates that do I/O, tell the time, or draw random numbers.
const IMPURE: &[&str] = &[
    "async-std",
    "aya",
    "axum",
    "chrono",
    "fastrand",
    "futures",
    "getrandom",
    "hextet-agent",
    "hextet-kernel",
    "hextet-lab",
    "hextet-server",
    "hextet-store",
    "hyper",
    "libc",
    "mio",
    "netlink-packet-core",
    "netlink-packet-route",
    "netlink-sys",
    "nix",
    "rand",
    "redb",
    "reqwest",
    "rtnetlink",
    "rustix",
    "smol",
    "socket2",
    "time",
    "tokio",
    "tokio-rustls",
];

/// What `[package] name` says.
pub fn package_name(manifest: &str) -> Option<String> {
    let mut section = "";
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        } else if section == "[package]"
            && let Some((key, value)) = line.split_once('=')
            && key.trim() == "name"
        {
            return Some(value.trim().trim_matches('"').to_owned());
        }
    }
    None
}

/// Adds what is wrong with a manifest.
pub fn check(path: &Path, text: &str, findings: &mut Vec<Finding>) {
    if !is_pure(path) {
        return;
    }
    let mut section = String::new();
    for (index, line) in text.lines().map(str::trim).enumerate() {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).to_owned();
        }
        let Some(name) = dependency(&section, line) else {
            continue;
        };
        if IMPURE.contains(&name) {
            findings.push(Finding {
                path: path.to_owned(),
                line: index + 1,
                message: format!(
                    "a pure crate may not depend on {name}: engines take events and times as arguments and \
                     return actions; the driver in crates/agent does the I/O"
                ),
            });
        }
    }
}

/// The crate that a line of a (non-development) dependency section names.
fn dependency<'a>(section: &'a str, line: &'a str) -> Option<&'a str> {
    if let Some(name) = section.strip_prefix("dependencies.") {
        return line.starts_with('[').then_some(name);
    }
    let inside = section == "dependencies" || section.ends_with(".dependencies");
    if !inside || line.starts_with(['[', '#']) {
        return None;
    }
    line.split(['=', '.'])
        .next()
        .map(str::trim)
        .filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        let mut findings = Vec::new();
        check(Path::new(path), text, &mut findings);
        findings.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_pure_crate_depends_on_no_io() {
        let text = "[package]\nname = \"x\"\n[dependencies]\nbytes = \"1\"\ntokio.workspace = true\n\
                    rand = { version = \"1\" }\n[dev-dependencies]\ntokio = \"1\"\n[dependencies.nix]\n\
                    version = \"1\"\n";
        assert_eq!(lines("crates/bfd/Cargo.toml", text), [5, 6, 9]);
        assert_eq!(lines("crates/agent/Cargo.toml", text), [0; 0]);
    }

    #[test]
    fn the_name_of_a_package() {
        let text = "[lib]\nname = \"no\"\n[package]\nversion = \"1\"\nname = \"yes\"\n";
        assert_eq!(package_name(text).as_deref(), Some("yes"));
        assert_eq!(package_name("[lib]\nname = \"no\"\n"), None);
    }
}
