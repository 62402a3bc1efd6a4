//! Replaces the files of a volume at once: a reader sees all old or all new content, never a mix.
//!
//! Content lies in `..<time>.<random>/`; `..data` is a link to it that one rename switches; what
//! users see are links into `..data`. Names that start with `..` are reserved for this.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Component, Path};

const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    pub(super) data: Vec<u8>,
    pub(super) mode: u32,
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    Unchanged,
    Replaced,
}

/// Makes `root` show exactly `files`. `stamp` names the new content; it starts with `..` and is
/// never used twice. `group` owns the files, when given.
pub(super) fn write(
    root: &Path,
    files: &BTreeMap<String, File>,
    group: Option<i64>,
    stamp: &str,
) -> io::Result<Written> {
    let current = fs::read_link(root.join(DATA)).ok();
    if let Some(current) = &current
        && same(&root.join(current), files, group)?
    {
        link_names(root, files)?;
        return Ok(Written::Unchanged);
    }
    let fresh = root.join(stamp);
    fs::create_dir(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    for (path, file) in files {
        write_file(&fresh, path, file, group)?;
    }
    // Left by a write that was interrupted.
    match fs::remove_file(root.join(DATA_NEXT)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(stamp, root.join(DATA_NEXT))?;
    fs::rename(root.join(DATA_NEXT), root.join(DATA))?;
    link_names(root, files)?;
    remove_old(root, stamp)?;
    Ok(Written::Replaced)
}

fn group_id(group: Option<i64>) -> Option<u32> {
    group.and_then(|group| u32::try_from(group).ok())
}

/// Files shared with a group are readable by it.
fn mode_of(file: &File, group: Option<i64>) -> u32 {
    if group.is_some() {
        file.mode | ((file.mode & 0o700) >> 3 & 0o050)
    } else {
        file.mode
    }
}

fn write_file(root: &Path, path: &str, file: &File, group: Option<i64>) -> io::Result<()> {
    let target = root.join(path);
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    let mode = mode_of(file, group);
    let mut open = fs::OpenOptions::new();
    let mut handle = open.write(true).create_new(true).mode(mode).open(&target)?;
    handle.write_all(&file.data)?;
    // The mode given at creation is subject to the umask.
    handle.set_permissions(fs::Permissions::from_mode(mode))?;
    if let Some(group) = group_id(group) {
        std::os::unix::fs::fchown(&handle, None, Some(group))?;
    }
    Ok(())
}

fn same(directory: &Path, files: &BTreeMap<String, File>, group: Option<i64>) -> io::Result<bool> {
    let mut present = BTreeSet::new();
    list(directory, directory, &mut present)?;
    if present.len() != files.len() || !files.keys().all(|path| present.contains(&normal(path))) {
        return Ok(false);
    }
    for (path, file) in files {
        let target = directory.join(path);
        let metadata = fs::metadata(&target)?;
        let fits = metadata.mode() & 0o777 == mode_of(file, group)
            && group_id(group).is_none_or(|group| metadata.gid() == group);
        if !fits || fs::read(&target)? != file.data {
            return Ok(false);
        }
    }
    Ok(true)
}

fn normal(path: &str) -> String {
    path.split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect::<Vec<_>>()
        .join("/")
}

fn list(root: &Path, directory: &Path, found: &mut BTreeSet<String>) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            list(root, &path, found)?;
        } else if let Ok(relative) = path.strip_prefix(root) {
            found.insert(relative.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

/// The first part of each path becomes a link into `..data`; links that lead nowhere go.
fn link_names(root: &Path, files: &BTreeMap<String, File>) -> io::Result<()> {
    let wanted: BTreeSet<String> = files
        .keys()
        .filter_map(|path| {
            Path::new(path)
                .components()
                .find_map(|component| match component {
                    Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
                    _ => None,
                })
        })
        .collect();
    for name in &wanted {
        let link = root.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && entry.file_type()?.is_symlink() && !wanted.contains(&name) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Removes content that `..data` no longer names.
fn remove_old(root: &Path, keep: &str) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("..") && name != keep && entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(entries: &[(&str, &str)]) -> BTreeMap<String, File> {
        let file = |data: &str| File {
            data: data.as_bytes().to_vec(),
            mode: 0o640,
        };
        entries
            .iter()
            .map(|(path, data)| ((*path).to_owned(), file(data)))
            .collect()
    }

    fn visible(root: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(root)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with(".."))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn content_is_replaced_as_a_whole_and_old_names_go() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let first = files(&[("a", "1"), ("dir/b", "2")]);
        assert_eq!(write(root, &first, None, "..1").unwrap(), Written::Replaced);
        assert_eq!(visible(root), ["a", "dir"]);
        assert_eq!(fs::read_to_string(root.join("dir/b")).unwrap(), "2");
        assert_eq!(fs::metadata(root.join("a")).unwrap().mode() & 0o777, 0o640);

        let mut held = fs::File::open(root.join("a")).unwrap();
        let second = files(&[("dir/b", "3"), ("c", "4")]);
        assert_eq!(
            write(root, &second, None, "..2").unwrap(),
            Written::Replaced
        );
        assert_eq!(visible(root), ["c", "dir"]);
        assert_eq!(fs::read_to_string(root.join("dir/b")).unwrap(), "3");
        let mut old = String::new();
        io::Read::read_to_string(&mut held, &mut old).unwrap();
        assert_eq!(old, "1", "an open file keeps its old content");
        assert!(!root.join("..1").exists());
    }

    #[test]
    fn equal_content_is_not_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let content = files(&[("a", "1"), ("d/e/f", "2")]);
        assert_eq!(
            write(root, &content, None, "..1").unwrap(),
            Written::Replaced
        );
        assert_eq!(
            write(root, &content, None, "..2").unwrap(),
            Written::Unchanged
        );
        assert!(root.join("..1").exists() && !root.join("..2").exists());
    }

    #[test]
    fn an_interrupted_write_is_repaired_by_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        write(root, &files(&[("a", "1")]), None, "..1").unwrap();
        fs::create_dir(root.join("..half")).unwrap();
        symlink("..half", root.join(DATA_NEXT)).unwrap();
        write(root, &files(&[("a", "2")]), None, "..2").unwrap();
        assert_eq!(fs::read_to_string(root.join("a")).unwrap(), "2");
        assert!(!root.join("..half").exists() && !root.join(DATA_NEXT).exists());
    }

    #[test]
    fn an_empty_volume_is_valid() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &BTreeMap::new(), None, "..1").unwrap();
        assert!(visible(directory.path()).is_empty());
    }
}
