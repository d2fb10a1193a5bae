//! Where things are on this machine, and how cargo is called.
//!
//! Build results go to `CARGO_TARGET_DIR` where it is set, else to hextet's cache directory, so that a
//! checkout stays clean and several share one cache.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode, ExitStatus},
};

use anyhow::{Context, Result, bail};

/// The checkout and the directories beside it.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// The root of the checkout.
    pub root: PathBuf,
    /// `${XDG_CACHE_HOME:-~/.cache}/hextet`.
    pub cache: PathBuf,
    /// Where cargo builds.
    pub target: PathBuf,
}

impl Workspace {
    /// Finds the checkout from which cargo runs this program.
    pub fn find() -> Result<Workspace> {
        let built_in = || env!("CARGO_MANIFEST_DIR").into();
        let package = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(built_in);
        let root = Path::new(&package)
            .parent()
            .context("find the checkout: xtask stands at the root of the file system")?
            .to_owned();
        let cache = cache_dir(env::var_os("XDG_CACHE_HOME"), env::var_os("HOME"))?;
        let target = match env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty()) {
            Some(dir) => root.join(dir),
            None => cache.join("target"),
        };
        let workspace = Workspace {
            root,
            cache,
            target,
        };
        workspace.take_target()?;
        Ok(workspace)
    }

    /// Cargo takes what another checkout has built from files that are newer than these for its own: what it built is
    /// removed, but for dependencies.
    fn take_target(&self) -> Result<()> {
        let note = self.target.join("checkout");
        let root = self.root.as_os_str().as_encoded_bytes();
        if std::fs::read(&note).is_ok_and(|last| last == root) {
            return Ok(());
        }
        if self.target.join("debug").exists() || self.target.join("release").exists() {
            let target = self.target.display();
            eprintln!(
                "Another checkout may have built into {target}: hextet's own crates are built anew"
            );
            let mut clean = self.cargo();
            clean.args(["clean", "--quiet", "--workspace"]);
            let status = clean.status().context("run cargo clean")?;
            if !status.success() {
                bail!("cargo clean --workspace: {status}");
            }
        }
        std::fs::create_dir_all(&self.target)
            .and_then(|()| std::fs::write(&note, root))
            .with_context(|| format!("write {}", note.display()))
    }

    /// `cargo` in the checkout, building into the shared cache.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.target);
        command
    }

    /// Where the tools stand that xtask builds for itself (`bin/` below it holds the programs).
    pub fn tools(&self) -> PathBuf {
        self.cache.join("tools")
    }

    /// A tool of [`Workspace::tools`], or the same on `PATH`.
    pub fn tool(&self, name: &str) -> Option<PathBuf> {
        let own = self.tools().join("bin").join(name);
        own.is_file().then_some(own).or_else(|| on_path(name))
    }

    /// Builds a tool from crates.io, once.
    pub fn install_tool(&self, name: &str, version: &str) -> Result<PathBuf> {
        if let Some(tool) = self.tool(name) {
            return Ok(tool);
        }
        eprintln!(
            "Building {name} {version} into {} (once)",
            self.tools().display()
        );
        let build = self.tools().join("build");
        let status = self
            .cargo()
            .env("CARGO_TARGET_DIR", &build)
            .args([
                "install",
                "--quiet",
                "--locked",
                "--version",
                version,
                "--root",
            ])
            .arg(self.tools())
            .arg(name)
            .status()
            .with_context(|| format!("run cargo install {name}"))?;
        // Only the program is wanted; what it was built from is hundreds of megabytes.
        let _ = std::fs::remove_dir_all(&build);
        match self.tool(name) {
            Some(tool) if status.success() => Ok(tool),
            _ => bail!("cargo install {name} {version}: {status}"),
        }
    }
}

fn cache_dir(xdg: Option<std::ffi::OsString>, home: Option<std::ffi::OsString>) -> Result<PathBuf> {
    let absolute =
        |dir: std::ffi::OsString| Some(PathBuf::from(dir)).filter(|dir| dir.is_absolute());
    xdg.and_then(absolute)
        .or_else(|| home.and_then(absolute).map(|home| home.join(".cache")))
        .map(|base| base.join("hextet"))
        .context("find the cache directory: set HOME or XDG_CACHE_HOME to an absolute path")
}

/// The program of this name on `PATH`; Debian keeps some in `sbin`, which a user's `PATH` may lack.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// Whether this runs as root, which labs and package installation need.
pub fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
            Some(uids.split_whitespace().nth(1)? == "0")
        })
        .unwrap_or(false)
}

/// Hands a program's exit status on as our own.
pub fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_follows_xdg_then_home() {
        let some = |s: &str| Some(s.into());
        assert_eq!(
            cache_dir(some("/x"), some("/h")).unwrap(),
            Path::new("/x/hextet")
        );
        assert_eq!(
            cache_dir(None, some("/h")).unwrap(),
            Path::new("/h/.cache/hextet")
        );
        assert_eq!(
            cache_dir(some("rel"), some("/h")).unwrap(),
            Path::new("/h/.cache/hextet")
        );
        assert_eq!(
            cache_dir(some(""), some("/h")).unwrap(),
            Path::new("/h/.cache/hextet")
        );
        assert!(cache_dir(None, None).is_err());
    }

    #[test]
    fn programs_are_found_on_the_path() {
        assert!(on_path("sh").is_some());
        assert_eq!(on_path("no-such-program-anywhere"), None);
    }
}
