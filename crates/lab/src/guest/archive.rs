//! An initial RAM disk: a cpio archive in the "newc" format (Linux, early-userspace/buffer-format).

/// An archive in the making; root owns everything in it.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inodes: u32,
}

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const DEVICE: u32 = 0o020_600;

impl Archive {
    /// Adds a directory; those above it have to be there.
    pub fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY, (0, 0), &[]);
    }

    /// Adds a file that anybody can read and run.
    pub fn file(&mut self, path: &str, contents: &[u8]) {
        self.entry(path, PROGRAM, (0, 0), contents);
    }

    /// Adds a character device.
    pub fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.entry(path, DEVICE, (major, minor), &[]);
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, (major, minor): (u32, u32), contents: &[u8]) {
        self.inodes += 1;
        let size = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        let links = 1;
        let fields = [
            self.inodes,
            mode,
            0,
            0,
            links,
            0,
            size(contents.len()),
            0,
            0,
            major,
            minor,
            size(path.len() + 1),
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_names_and_contents_are_aligned() {
        let mut archive = Archive::default();
        archive.directory("bin");
        archive.file("init", b"hello");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let at = |text: &[u8]| {
            bytes
                .windows(text.len())
                .position(|window| window == text)
                .unwrap()
        };
        // A header is 110 octets; "bin" and its zero make it 114, padded to 116.
        assert_eq!(at(b"bin\0"), 110);
        assert_eq!(at(b"init\0"), 116 + 110);
        assert_eq!(at(b"hello") % 4, 0);
        assert!(at(b"TRAILER!!!") > at(b"hello"));
        assert_eq!(&bytes[54..62], b"00000000", "a directory has no contents");
        assert_eq!(&bytes[116 + 54..116 + 62], b"00000005");
    }
}
