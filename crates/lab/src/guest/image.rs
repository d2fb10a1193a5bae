//! The kernel that guests run: Debian's, fetched once and kept in hextet's cache directory.

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{GuestSpec, archive::Archive, program};
use crate::{Error, node::succeed};

/// What a guest's network card needs.
const MODULES: &[&str] = &["virtio_net"];
const BUSYBOX: &str = "/bin/busybox";
/// The longest chain of modules that need each other; a longer one is a circle.
const MAX_MODULES: usize = 200;

/// A kernel with its modules, unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    directory: PathBuf,
}

impl Kernel {
    /// The newest kernel in the cache; the newest that Debian has, when there is none.
    ///
    /// # Errors
    ///
    /// None is there, and none can be had from the package archive.
    pub fn find_or_fetch() -> Result<Kernel, Error> {
        let cache = cache_dir()?.join("guest");
        match newest(subdirectories(&cache)) {
            Some(name) => Ok(Kernel {
                directory: cache.join(name),
            }),
            None => fetch(&cache),
        }
    }

    /// The kernel image.
    pub(super) fn vmlinuz(&self) -> PathBuf {
        let boot = fs::read_dir(self.directory.join("boot"))
            .into_iter()
            .flatten()
            .flatten();
        let image = boot.map(|entry| entry.path()).find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
        });
        image.unwrap_or_else(|| self.directory.join("boot/vmlinuz"))
    }

    /// Writes the initial RAM disk for a guest: BusyBox, our scripts, its configuration, modules and programs.
    pub(super) fn write_initrd(&self, path: &Path, spec: &GuestSpec) -> Result<(), Error> {
        let busybox = fs::read(BUSYBOX).map_err(no_busybox)?;
        let mut archive = Archive::default();
        for directory in ["bin", "dev", "etc", "modules", "proc", "sys"] {
            archive.directory(directory);
        }
        archive.device("dev/console", 5, 1);
        archive.file("bin/busybox", &busybox);
        archive.file("init", include_bytes!("init.sh"));
        archive.file("bound.sh", include_bytes!("bound.sh"));
        archive.file("answer.sh", include_bytes!("answer.sh"));
        archive.file("config", spec.config().as_bytes());
        let wanted = MODULES
            .iter()
            .map(|name| (*name).to_owned())
            .chain(spec.modules.iter().cloned());
        for (number, (name, module)) in self.modules(wanted.collect())?.iter().enumerate() {
            archive.file(&format!("modules/{number:03}-{name}.ko"), module);
        }
        program::add(&mut archive, &spec.programs)?;
        fs::write(path, archive.finish()).map_err(Error::io(format!("write {}", path.display())))
    }

    /// These modules and what they need, each after what it needs.
    fn modules(&self, wanted: Vec<String>) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let mut files = BTreeMap::new();
        find_modules(&self.directory.join("lib/modules"), &mut files);
        let mut ordered: Vec<(String, Vec<u8>)> = Vec::new();
        let mut waiting = wanted;
        waiting.reverse();
        let mut looks = 0;
        while let Some(name) = waiting.last().map(|name| name.replace('-', "_")) {
            looks += 1;
            if looks > MAX_MODULES {
                return Err(Error::Guest(format!(
                    "the modules that {name} needs go in a circle"
                )));
            }
            if ordered.iter().any(|(there, _)| *there == name) {
                waiting.pop();
                continue;
            }
            let file = files
                .get(&name)
                .ok_or_else(|| Error::Guest(format!("no kernel module {name}")))?;
            let module = unpack(file)?;
            let needed = dependencies(&module);
            let missing = needed
                .into_iter()
                .filter(|name| ordered.iter().all(|(there, _)| there != name));
            let missing: Vec<String> = missing.collect();
            if missing.is_empty() {
                ordered.push((name, module));
                waiting.pop();
            } else {
                waiting.extend(missing);
            }
        }
        Ok(ordered)
    }
}

fn cache_dir() -> Result<PathBuf, Error> {
    let absolute = |name: &str| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("hextet"))
        .ok_or_else(|| {
            Error::Guest("set HOME or XDG_CACHE_HOME: kernels are kept there".to_owned())
        })
}

fn subdirectories(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// The newest of Debian's signed cloud kernels for this machine, by the numbers in its name.
fn newest(names: Vec<String>) -> Option<String> {
    let version = |name: &str| -> Option<Vec<u32>> {
        let version = name
            .strip_prefix("linux-image-")?
            .strip_suffix("-cloud-amd64")?;
        let numbers = version
            .split(|c: char| !c.is_ascii_digit())
            .filter(|part| !part.is_empty());
        let numbers: Vec<u32> = numbers.filter_map(|part| part.parse().ok()).collect();
        // A name with fewer is a meta package, which has no kernel in it.
        (numbers.len() >= 3).then_some(numbers)
    };
    names
        .into_iter()
        .filter(|name| version(name).is_some())
        .max_by_key(|name| version(name))
}

/// Fetches and unpacks into a directory of its own, which gets its name when it is complete.
fn fetch(cache: &Path) -> Result<Kernel, Error> {
    let names = run(Command::new("apt-cache").args(["pkgnames", "linux-image-"]))?;
    let name = newest(names.lines().map(str::to_owned).collect()).ok_or_else(|| {
        Error::Guest("apt knows no linux-image-…-cloud-amd64: run apt-get update".to_owned())
    })?;
    let work = cache.join(format!(".{name}.{}", std::process::id()));
    fs::create_dir_all(&work).map_err(Error::io(format!("make {}", work.display())))?;
    run(Command::new("apt-get")
        .args(["download", &name])
        .current_dir(&work))?;
    let packages = subdirectories(&work);
    let package = packages.iter().find(|file| file.ends_with(".deb"));
    let package =
        package.ok_or_else(|| Error::Guest(format!("apt-get download {name} left no package")))?;
    run(Command::new("dpkg-deb")
        .args(["--extract", package, "tree"])
        .current_dir(&work))?;
    let directory = cache.join(&name);
    match fs::rename(work.join("tree"), &directory) {
        // Somebody else was as quick.
        Err(_) if directory.is_dir() => {}
        other => other.map_err(Error::io(format!("make {}", directory.display())))?,
    }
    fs::remove_dir_all(&work).map_err(Error::io(format!("remove {}", work.display())))?;
    Ok(Kernel { directory })
}

fn run(command: &mut Command) -> Result<String, Error> {
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let output = command.stdin(Stdio::null()).output();
    succeed(
        &words,
        None,
        output.map_err(Error::io(format!("run {}", words.join(" "))))?,
    )
}

/// All modules below a directory by name; in names, dashes are underscores.
fn find_modules(directory: &Path, files: &mut BTreeMap<String, PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            find_modules(&path, files);
        } else if let Some((name, "ko" | "ko.xz")) = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.split_once('.'))
        {
            files.insert(name.replace('-', "_"), path);
        }
    }
}

fn unpack(path: &Path) -> Result<Vec<u8>, Error> {
    let operation = format!("unpack {}", path.display());
    if path.extension().is_some_and(|extension| extension == "ko") {
        return fs::read(path).map_err(Error::io(operation));
    }
    let output = Command::new("xz")
        .arg("-dc")
        .arg(path)
        .stdin(Stdio::null())
        .output();
    let output = output.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::NoProgram {
            program: "xz".to_owned(),
            package: "xz-utils",
        },
        _ => Error::Io {
            operation: operation.clone(),
            source: error,
        },
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    succeed(&["xz", "-dc", &path.display().to_string()], None, output).map(|_| Vec::new())
}

/// The modules that a module names as needed: `depends=a,b` in its `.modinfo`.
fn dependencies(module: &[u8]) -> Vec<String> {
    let mut strings = module.split(|byte| *byte == 0);
    let line = strings.find_map(|string| string.strip_prefix(b"depends="));
    let names = String::from_utf8_lossy(line.unwrap_or_default()).into_owned();
    names
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

fn no_busybox(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::NoProgram {
            program: BUSYBOX.to_owned(),
            package: "busybox-static",
        },
        _ => Error::Io {
            operation: format!("read {BUSYBOX}"),
            source: error,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_by_its_numbers() {
        let names = [
            "linux-image-6.1.0-47-cloud-amd64",
            "linux-image-6.12.99+deb12-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
            "linux-image-6.12.118+deb12-cloud-amd64-dbg",
            "linux-image-6.12.118+deb12-cloud-amd64-unsigned",
            "linux-image-6.13-cloud-amd64",
            "linux-image-cloud-amd64",
        ];
        let names = names.map(str::to_owned).to_vec();
        assert_eq!(
            newest(names).as_deref(),
            Some("linux-image-6.12.117+deb12-cloud-amd64")
        );
        assert_eq!(newest(Vec::new()), None);
    }

    #[test]
    fn what_a_module_needs() {
        let module = b"\x7fELF\0license=GPL\0depends=net-failover,virtio\0name=virtio_net\0";
        assert_eq!(dependencies(module), ["net_failover", "virtio"]);
        assert!(dependencies(b"depends=\0").is_empty());
        assert!(dependencies(b"").is_empty());
    }
}
