//! The licences of what we build on: changes when another licence becomes acceptable.
//!
//! Read from `deny.toml`, so that cargo-deny gives the same answer where it is installed; here
//! it costs one `cargo tree` instead of a build of 140 crates (docs/adr/0011).

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::{process, workspace};

/// A crate of the lock file that is really built.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    licence: String,
    /// Only of a crate that does not come from the registry: a path or a repository.
    source: Option<String>,
}

/// Licences, banned crates and sources of every crate that is built for this machine.
pub(crate) fn run() -> Result<()> {
    let path = workspace::root().join("deny.toml");
    let text = std::fs::read_to_string(&path).context("read deny.toml")?;
    let allowed = list(&text, "licenses", "allow")?;
    let banned = list(&text, "bans", "deny")?;
    let mut command = workspace::cargo("tree");
    command.args(["--workspace", "--locked"]);
    command.args(["--prefix", "none", "--format", "{p}\t{l}\t"]);
    let said = process::capture(&mut command)?;
    let packages: BTreeSet<Package> = said.lines().filter_map(parse).collect();
    let wrong: Vec<String> = packages
        .iter()
        .filter_map(|package| fault(package, &allowed, &banned))
        .collect();
    if !wrong.is_empty() {
        bail!("dependencies:\n  {}", wrong.join("\n  "));
    }
    println!(
        "{} crates have licences and sources that we take",
        packages.len()
    );
    Ok(())
}

/// `NAME vVERSION (proc-macro) (SOURCE)`, then the licence between tabs.
fn parse(line: &str) -> Option<Package> {
    let mut columns = line.split('\t');
    let (package, licence) = (columns.next()?, columns.next()?);
    let mut words = package.split_whitespace();
    let (name, version) = (words.next()?, words.next()?);
    let source = words.find(|word| *word != "(proc-macro)");
    Some(Package {
        name: name.to_owned(),
        version: version.trim_start_matches('v').to_owned(),
        licence: licence.to_owned(),
        source: source.map(|word| word.trim_matches(['(', ')']).to_owned()),
    })
}

fn fault(package: &Package, allowed: &[String], banned: &[String]) -> Option<String> {
    let name = format!("{} {}", package.name, package.version);
    if let Some(source) = &package.source {
        // A path is of this tree, or of the copy of a dependency that this tree carries.
        let ours = Path::new(source).starts_with(workspace::root());
        return (!ours).then(|| format!("{name}: comes from {source}"));
    }
    if banned.contains(&package.name) {
        return Some(format!("{name}: banned in deny.toml"));
    }
    let good = satisfied(&package.licence, allowed);
    (!good).then(|| format!("{name}: licence {:?}", package.licence))
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
    use super::{fault, list, parse, satisfied};

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
        let of = |line: &str| fault(&parse(line).unwrap(), &allowed(), &["bad".to_owned()]);
        assert_eq!(of("good v1.0.0\tMIT\t"), None);
        assert_eq!(of("good v1.0.0 (proc-macro)\tMIT\t (*)"), None);
        for line in [
            "bad v1.0.0\tMIT\t",
            "good v1.0.0\t\t",
            "good v1.0.0 (https://x#1)\tMIT\t",
        ] {
            assert!(of(line).is_some(), "{line}");
        }
    }

    #[test]
    fn lists_are_read_from_their_own_table() {
        let text = "[a]\nallow = [\n  \"X\",\n]\n[b]\n# c\nallow = [\n  # \"no\"\n  { crate = \"Y\", reason = \"z\" },\n]\n";
        assert_eq!(list(text, "a", "allow").unwrap(), ["X"]);
        assert_eq!(list(text, "b", "allow").unwrap(), ["Y"]);
        list(text, "a", "deny").unwrap_err();
    }
}
