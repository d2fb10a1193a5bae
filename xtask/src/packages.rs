//! The Debian packages that each command needs, and how they get onto a machine.
//!
//! Looks before it asks: with everything there, no package tool but `dpkg-query` runs. Services that a
//! package would start (`bird`, `frr`) are kept from starting, since a lab runs its own.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::workspace::{is_root, on_path};

/// What building hextet takes beyond Rust: a linker, and clang for the eBPF programs.
pub const BUILD: &[&str] = &[
    "build-essential",
    "clang",
    "libbpf-dev",
    "llvm",
    "pkg-config",
];

/// What a lab and its guests take.
pub const LAB: &[&str] = &[
    "bird2",
    "busybox-static",
    "conntrack",
    "curl",
    "dnsmasq-base",
    "iproute2",
    "iptables",
    "iputils-ping",
    "isc-dhcp-client",
    "kea-dhcp6-server",
    "keepalived",
    "ndisc6",
    // The names of protocols, which labs have nft look up.
    "netbase",
    "netcat-openbsd",
    "nftables",
    "openssl",
    "procps",
    "python3",
    "qemu-system-x86",
    "radvd",
    "tcpdump",
    "udhcpc",
    "xz-utils",
];

/// What the interop suites take: the programs of others.
pub const INTEROP: &[&str] = &[
    "babeld",
    "frr",
    "gobgpd",
    "miniupnpd",
    "miniupnpd-nftables",
    "python3-openstackclient",
    "python3-venv",
    "wide-dhcpv6-client",
    "wireguard-go",
    "wireguard-tools",
];

/// What benches compare with, beyond [`INTEROP`].
pub const PEERS: &[&str] = &["ipset", "ndppd", "openvpn"];

/// Installs what is missing of the lists, or says how.
pub fn ensure(lists: &[&[&str]]) -> Result<()> {
    let wanted: BTreeSet<&str> = lists.iter().copied().flatten().copied().collect();
    if on_path("dpkg-query").is_none() {
        eprintln!(
            "This is no Debian machine: make sure to have {}",
            join(&wanted)
        );
        return Ok(());
    }
    let missing = missing(&wanted)?;
    if missing.is_empty() {
        return Ok(());
    }
    let install = format!(
        "apt-get install --no-install-recommends -y {}",
        join(&missing)
    );
    if !is_root() {
        bail!(
            "{} Debian packages are missing; install them with: sudo {install}",
            missing.len()
        );
    }
    eprintln!("Installing {}", join(&missing));
    let _policy = NoServices::set(Path::new("/usr/sbin/policy-rc.d"));
    apt(&["update", "-q"])?;
    let mut arguments = vec!["install", "--no-install-recommends", "-y", "-q"];
    arguments.extend(&missing);
    apt(&arguments)
}

fn join(packages: &BTreeSet<&str>) -> String {
    packages.iter().copied().collect::<Vec<_>>().join(" ")
}

fn missing<'a>(wanted: &BTreeSet<&'a str>) -> Result<BTreeSet<&'a str>> {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"])
        .args(wanted)
        .output()
        .context("run dpkg-query")?;
    let installed = installed(&String::from_utf8_lossy(&output.stdout));
    Ok(wanted
        .iter()
        .copied()
        .filter(|package| !installed.contains(*package))
        .collect())
}

fn installed(listing: &str) -> BTreeSet<String> {
    listing
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(_, status)| *status == "installed")
        .map(|(package, _)| package.to_owned())
        .collect()
}

/// Quiet unless it fails: what apt says is of interest only then.
fn apt(arguments: &[&str]) -> Result<()> {
    let output = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .output()
        .context("run apt-get")?;
    if !output.status.success() {
        bail!(
            "apt-get {}: {}\n{}{}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// While this lives, packages start no services (Debian's `invoke-rc.d` policy); somebody else's policy
/// is left alone.
struct NoServices<'a>(Option<&'a Path>);

impl<'a> NoServices<'a> {
    fn set(policy: &'a Path) -> NoServices<'a> {
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(policy);
        let written = made.and_then(|mut file| file.write_all(b"#!/bin/sh\nexit 101\n"));
        NoServices(written.is_ok().then_some(policy))
    }
}

impl Drop for NoServices<'_> {
    fn drop(&mut self) {
        if let Some(policy) = self.0 {
            let _ = fs::remove_file(policy);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_fully_installed_counts() {
        let listing = "bird2 installed\nfrr config-files\nclang installed\n";
        let found = installed(listing);
        assert_eq!(
            found.iter().map(String::as_str).collect::<Vec<_>>(),
            ["bird2", "clang"]
        );
    }

    #[test]
    fn the_policy_goes_away_and_a_foreign_one_stays() {
        let dir = std::env::temp_dir().join(format!("xtask-policy-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("policy-rc.d");
        drop(NoServices::set(&path));
        assert!(!path.exists());
        fs::write(&path, "theirs").unwrap();
        drop(NoServices::set(&path));
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
        fs::remove_dir_all(&dir).unwrap();
    }
}
