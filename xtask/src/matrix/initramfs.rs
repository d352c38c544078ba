//! The root file system of the guest: a cpio archive in the "newc" format, which the kernel unpacks
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// An archive that is being written.
pub struct Initramfs<W> {
    out: W,
    entries: u32,
    /// Paths of the folders that are in it.
    folders: BTreeSet<String>,
}

impl<W: Write> Initramfs<W> {
    pub fn new(out: W) -> Self {
        Self {
            out,
            entries: 0,
            folders: BTreeSet::new(),
        }
    }

    /// Adds a folder, given by its path from the root, and those that it lies in.
    pub fn folder(&mut self, path: &str) -> io::Result<()> {
        if path.is_empty() || !self.folders.insert(path.to_owned()) {
            return Ok(());
        }
        self.folder_of(path)?;
        self.entry(path, DIRECTORY, &[])
    }

    /// Adds a file that everybody may read and execute.
    pub fn file(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        self.folder_of(path)?;
        self.entry(path, PROGRAM, content)
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.folder_of(path)?;
        self.entry(path, LINK, target.as_bytes())
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.out)
    }

    fn folder_of(&mut self, path: &str) -> io::Result<()> {
        match path.rsplit_once('/') {
            Some((folder, _)) => self.folder(folder),
            None => Ok(()),
        }
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.entries += 1;
        let size = u32::try_from(content.len()).map_err(io::Error::other)?;
        let name_size = u32::try_from(path.len() + 1).map_err(io::Error::other)?;
        let (owner, links, time, device, checksum) = (0, 1, 0, 0, 0);
        let header = [
            self.entries,
            mode,
            owner,
            owner,
            links,
            time,
            size,
            device,
            device,
            device,
            device,
            name_size,
            checksum,
        ];
        let mut head = b"070701".to_vec();
        for field in header {
            write!(head, "{field:08x}")?;
        }
        head.extend_from_slice(path.as_bytes());
        head.push(0);
        for part in [&head[..], content] {
            self.out.write_all(part)?;
            // The header with the name, and the content, both end at a multiple of four bytes.
            self.out
                .write_all(&[0; 3][..part.len().next_multiple_of(4) - part.len()])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_end_with_the_trailer() {
        let mut archive = Initramfs::new(Vec::new());
        archive.file("a/b", b"hello").unwrap();
        archive.folder("a").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("070701").count(), 3);
        assert!(text.contains("a/b\0"));
        assert!(text.contains("hello\x00\x00\x00070701"));
        assert!(text.trim_end_matches('\0').ends_with("TRAILER!!!"));
        // Size and length of the name are the seventh and the twelfth field of the second header.
        let second = text[1..].find("070701").unwrap() + 1;
        let field = |index: usize| &text[second + 6 + index * 8..second + 14 + index * 8];
        assert_eq!((field(6), field(11)), ("00000005", "00000004"));
    }
}
