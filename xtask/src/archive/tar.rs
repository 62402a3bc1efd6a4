//! Writes tar files (POSIX.1-1988 `ustar`): changes never, unless a name outgrows the format.

use anyhow::{Context as _, Result, bail};

const BLOCK: usize = 512;

/// An archive that grows; every entry belongs to root and has no time stamp.
#[derive(Debug, Default)]
pub(crate) struct Tar {
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    File = b'0' as isize,
    Link = b'2' as isize,
    Directory = b'5' as isize,
}

impl Tar {
    pub(crate) fn directory(&mut self, name: &str, mode: u32) -> Result<()> {
        self.header(&format!("{name}/"), mode, 0, Kind::Directory, "")
    }

    pub(crate) fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.header(name, mode, content.len(), Kind::File, "")?;
        self.bytes.extend_from_slice(content);
        self.bytes
            .resize(self.bytes.len().next_multiple_of(BLOCK), 0);
        Ok(())
    }

    /// A symbolic link.
    pub(crate) fn link(&mut self, name: &str, to: &str) -> Result<()> {
        self.header(name, 0o777, 0, Kind::Link, to)
    }

    /// The archive ends with two empty blocks.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }

    fn header(&mut self, name: &str, mode: u32, size: usize, kind: Kind, to: &str) -> Result<()> {
        let mut block = [0_u8; BLOCK];
        put(&mut block, 0, 100, name.as_bytes()).with_context(|| format!("name {name:?}"))?;
        put(&mut block, 100, 8, format!("{mode:07o}").as_bytes())?;
        put(&mut block, 108, 8, b"0000000")?;
        put(&mut block, 116, 8, b"0000000")?;
        put(&mut block, 124, 12, format!("{size:011o}").as_bytes()).context("size")?;
        put(&mut block, 136, 12, b"00000000000")?;
        // The sum is taken with its own field full of blanks.
        put(&mut block, 148, 8, b"        ")?;
        put(&mut block, 156, 1, &[kind as u8])?;
        put(&mut block, 157, 100, to.as_bytes()).with_context(|| format!("link to {to:?}"))?;
        put(&mut block, 257, 8, b"ustar\x0000")?;
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        put(&mut block, 148, 8, format!("{sum:06o}\0 ").as_bytes())?;
        self.bytes.extend_from_slice(&block);
        Ok(())
    }
}

fn put(block: &mut [u8; BLOCK], at: usize, room: usize, value: &[u8]) -> Result<()> {
    if value.len() > room {
        bail!("longer than {room} bytes, the most that ustar holds");
    }
    block[at..at + value.len()].copy_from_slice(value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::Tar;

    /// The system's tar is the reference.
    fn listed(bytes: &[u8]) -> String {
        let mut child = Command::new("tar")
            .args([
                "--list",
                "--verbose",
                "--numeric-owner",
                "--utc",
                "--file=-",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn the_systems_tar_reads_what_is_written() {
        let mut tar = Tar::default();
        tar.directory("bin", 0o755).unwrap();
        tar.file("bin/a", 0o750, &[7; 513]).unwrap();
        tar.link("bin/b", "a").unwrap();
        assert_eq!(
            listed(&tar.finish()),
            "drwxr-xr-x 0/0               0 1970-01-01 00:00 bin/\n\
             -rwxr-x--- 0/0             513 1970-01-01 00:00 bin/a\n\
             lrwxrwxrwx 0/0               0 1970-01-01 00:00 bin/b -> a\n"
        );
    }

    #[test]
    fn a_name_of_100_bytes_fits_and_a_longer_one_is_refused() {
        Tar::default().file(&"n".repeat(100), 0o644, b"").unwrap();
        Tar::default()
            .file(&"n".repeat(101), 0o644, b"")
            .unwrap_err();
    }
}
