//! The licences of what we build on: changes when another licence becomes acceptable.
//!
//! Read from `deny.toml`, so that cargo-deny gives the same answer where it is installed; here
//! it costs one `cargo metadata` instead of a build of some three hundred crates.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::{process, workspace};

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// `None` for a crate of this tree.
    source: Option<String>,
}

/// Licences, banned crates and sources of every crate in the lock file.
pub(crate) fn run() -> Result<()> {
    let path = workspace::root().join("deny.toml");
    let text = std::fs::read_to_string(&path).context("read deny.toml")?;
    let allowed = list(&text, "licenses", "allow")?;
    let banned = list(&text, "bans", "deny")?;
    let mut command = Command::new("cargo");
    command
        .current_dir(workspace::root())
        .args(["metadata", "--format-version=1", "--locked"]);
    let metadata: Metadata =
        serde_json::from_str(&process::capture(&mut command)?).context("cargo metadata")?;
    let wrong: Vec<String> = metadata
        .packages
        .iter()
        .filter_map(|package| fault(package, &allowed, &banned))
        .collect();
    if !wrong.is_empty() {
        bail!("dependencies:\n  {}", wrong.join("\n  "));
    }
    println!(
        "{} crates have licences and sources that we take",
        metadata.packages.len()
    );
    Ok(())
}

fn fault(package: &Package, allowed: &[String], banned: &[String]) -> Option<String> {
    let source = package.source.as_deref()?;
    let name = format!("{} {}", package.name, package.version);
    if !source.starts_with("registry+") {
        return Some(format!("{name}: comes from {source}"));
    }
    if banned.contains(&package.name) {
        return Some(format!("{name}: banned in deny.toml"));
    }
    let Some(licence) = &package.license else {
        return Some(format!("{name}: no licence"));
    };
    (!satisfied(licence, allowed)).then(|| format!("{name}: {licence}"))
}

/// An SPDX expression: of `OR` one side, of `AND` both; older crates write `/` for `OR`.
fn satisfied(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser {
        words: &words,
        allowed,
    };
    parser.alternatives() && parser.words.is_empty()
}

struct Parser<'a> {
    words: &'a [&'a str],
    allowed: &'a [String],
}

impl Parser<'_> {
    fn alternatives(&mut self) -> bool {
        let mut any = self.all();
        while self.take("OR") {
            any |= self.all();
        }
        any
    }

    fn all(&mut self) -> bool {
        let mut every = self.one();
        while self.take("AND") {
            every &= self.one();
        }
        every
    }

    fn one(&mut self) -> bool {
        if self.take("(") {
            let inner = self.alternatives();
            return self.take(")") && inner;
        }
        let Some((first, rest)) = self.words.split_first() else {
            return false;
        };
        self.words = rest;
        // "Or any later version" takes the version that we take.
        let mut licence = first.trim_end_matches('+').to_owned();
        if self.take("WITH") {
            let Some((exception, rest)) = self.words.split_first() else {
                return false;
            };
            self.words = rest;
            licence = format!("{licence} WITH {exception}");
        }
        self.allowed.contains(&licence)
    }

    fn take(&mut self, word: &str) -> bool {
        match self.words.split_first() {
            Some((first, rest)) if *first == word => {
                self.words = rest;
                true
            }
            _ => false,
        }
    }
}

/// The strings of one array of `deny.toml`, which we write one a line. A crate of a ban may be
/// written as `{ crate = "name", reason = ".." }`.
fn list(text: &str, table: &str, key: &str) -> Result<Vec<String>> {
    let start = format!("{key} = [");
    let mut lines = text
        .lines()
        .skip_while(|line| line.trim() != format!("[{table}]"))
        .skip(1);
    lines
        .by_ref()
        .take_while(|line| !line.starts_with('['))
        .find(|line| line.trim() == start)
        .with_context(|| format!("deny.toml: [{table}] has no `{start}`"))?;
    Ok(lines
        .take_while(|line| line.trim() != "]")
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| line.split('"').nth(1))
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::{Package, fault, list, satisfied};

    fn allowed() -> Vec<String> {
        [
            "MIT",
            "Apache-2.0",
            "Apache-2.0 WITH LLVM-exception",
            "Unicode-3.0",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    #[test]
    fn expressions_are_read_as_spdx_has_them() {
        let good = [
            "MIT",
            "GPL-3.0 OR MIT",
            "MIT/Apache-2.0",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "GPL-2.0 OR Apache-2.0 WITH LLVM-exception",
            "Unicode-3.0+",
        ];
        for expression in good {
            assert!(satisfied(expression, &allowed()), "{expression}");
        }
        let bad = [
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(MIT",
            "MIT)",
            "",
            "MIT WITH",
            "MIT MIT",
        ];
        for expression in bad {
            assert!(!satisfied(expression, &allowed()), "{expression}");
        }
    }

    #[test]
    fn a_crate_from_a_repository_or_a_banned_one_is_a_fault() {
        let package = |name: &str, source: &str| Package {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            license: Some("MIT".to_owned()),
            source: Some(source.to_owned()),
        };
        let banned = ["bad".to_owned()];
        let of = |package: &Package| fault(package, &allowed(), &banned);
        assert_eq!(of(&package("good", "registry+x")), None);
        assert!(of(&package("bad", "registry+x")).is_some());
        assert!(of(&package("good", "git+x")).is_some());
    }

    #[test]
    fn lists_are_read_from_their_own_table() {
        let text = "[a]\nallow = [\n  \"X\",\n]\n[b]\n# c\nallow = [\n  # \"no\"\n  { crate = \"Y\", reason = \"z\" },\n]\n";
        assert_eq!(list(text, "a", "allow").unwrap(), ["X"]);
        assert_eq!(list(text, "b", "allow").unwrap(), ["Y"]);
        list(text, "a", "deny").unwrap_err();
    }
}
