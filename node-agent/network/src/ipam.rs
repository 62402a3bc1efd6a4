//! Which pod has which address.
//!
//! Owns: the allocations of this node, by sandbox, in memory and in an append-only log. An address is
//! given again as late as possible (next fit), so that state about its old owner has time to go. The
//! log survives the agent, not the machine: after a reboot no device is left and
//! [`Ipam::release_all_but`] frees everything, so it needs no sync.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::range::Range;

/// Addresses at the start of a range that no pod gets: the range's own and one for a gateway.
const RESERVED_FIRST: u64 = 2;

/// The addresses of one sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Addresses {
    /// IPv4 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v4: Option<Ipv4Addr>,
    /// IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v6: Option<Ipv6Addr>,
}

impl Addresses {
    fn all(self) -> impl Iterator<Item = IpAddr> {
        self.v4
            .map(IpAddr::V4)
            .into_iter()
            .chain(self.v6.map(IpAddr::V6))
    }
}

/// Why a sandbox got no address.
#[derive(Debug, thiserror::Error)]
pub enum AllocateError {
    /// The control plane has not given this node a range yet.
    #[error("this node has no pod address range yet; the runtime will try again")]
    NoRange,
    /// Every address is taken.
    #[error(
        "all {size} addresses of {range} are taken; delete pods or give the node a larger range"
    )]
    Exhausted {
        /// The range.
        range: Range,
        /// Its addresses.
        size: u64,
    },
    /// The log cannot be written: the allocation was not made.
    #[error("cannot write the address log {path}")]
    Log {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Record {
    Add {
        sandbox: String,
        addresses: Addresses,
    },
    Release {
        sandbox: String,
    },
}

/// The allocations of this node.
#[derive(Debug)]
pub struct Ipam {
    path: PathBuf,
    log: File,
    by_sandbox: BTreeMap<String, Addresses>,
    taken: HashSet<IpAddr>,
    ranges: Vec<Range>,
    next: HashMap<Range, u64>,
}

impl Ipam {
    /// Reads the log, or begins one. Lines that cannot be read (the last one may be cut off) are
    /// left out.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn open(path: &Path) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let mut by_sandbox = BTreeMap::new();
        if path.exists() {
            for line in BufReader::new(File::open(path)?).lines() {
                match serde_json::from_str(&line?) {
                    Ok(Record::Add { sandbox, addresses }) => {
                        by_sandbox.insert(sandbox, addresses);
                    }
                    Ok(Record::Release { sandbox }) => {
                        by_sandbox.remove(&sandbox);
                    }
                    Err(error) => {
                        tracing::warn!(file = %path.display(), %error, "skipped a line of the address log");
                    }
                }
            }
        }
        let compact = path.with_extension("new");
        let mut file = File::create(&compact)?;
        for (sandbox, addresses) in &by_sandbox {
            write_record(
                &mut file,
                &Record::Add {
                    sandbox: sandbox.clone(),
                    addresses: *addresses,
                },
            )?;
        }
        std::fs::rename(&compact, path)?;
        let taken = by_sandbox
            .values()
            .copied()
            .flat_map(Addresses::all)
            .collect();
        Ok(Self {
            path: path.to_owned(),
            log: OpenOptions::new().append(true).open(path)?,
            by_sandbox,
            taken,
            ranges: Vec::new(),
            next: HashMap::new(),
        })
    }

    /// Sets the ranges of this node. Allocations outside them stay until they are released.
    pub fn set_ranges(&mut self, ranges: Vec<Range>) {
        self.ranges = ranges;
    }

    /// The ranges of this node.
    #[must_use]
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// Addresses for `sandbox`, one of each family that the node has a range of. Asking again answers
    /// the same.
    ///
    /// # Errors
    /// [`AllocateError`]; nothing is taken then.
    pub fn allocate(&mut self, sandbox: &str) -> Result<Addresses, AllocateError> {
        if let Some(known) = self.by_sandbox.get(sandbox) {
            return Ok(*known);
        }
        let of_family = |v4: bool| {
            let ranges = self.ranges.iter().copied();
            ranges
                .filter(|range| range.address().is_ipv4() == v4)
                .collect::<Vec<_>>()
        };
        let (v4, v6) = (self.free(&of_family(true))?, self.free(&of_family(false))?);
        let mut addresses = Addresses::default();
        if let Some(IpAddr::V4(address)) = v4 {
            addresses.v4 = Some(address);
        }
        if let Some(IpAddr::V6(address)) = v6 {
            addresses.v6 = Some(address);
        }
        if addresses == Addresses::default() {
            return Err(AllocateError::NoRange);
        }
        self.write(&Record::Add {
            sandbox: sandbox.to_owned(),
            addresses,
        })?;
        for address in addresses.all() {
            self.taken.insert(address);
            if let Some(range) = self.ranges.iter().find(|range| range.contains(address)) {
                let offset = range.offset(address).unwrap_or(0);
                self.next.insert(*range, offset + 1);
            }
        }
        self.by_sandbox.insert(sandbox.to_owned(), addresses);
        Ok(addresses)
    }

    /// Frees the addresses of `sandbox`; `None` when it has none.
    ///
    /// # Errors
    /// [`AllocateError::Log`]; the addresses stay taken.
    pub fn release(&mut self, sandbox: &str) -> Result<Option<Addresses>, AllocateError> {
        let Some(addresses) = self.by_sandbox.get(sandbox).copied() else {
            return Ok(None);
        };
        self.write(&Record::Release {
            sandbox: sandbox.to_owned(),
        })?;
        self.by_sandbox.remove(sandbox);
        for address in addresses.all() {
            self.taken.remove(&address);
        }
        Ok(Some(addresses))
    }

    /// Frees every sandbox that `lives` does not know. Answers those that were freed.
    ///
    /// # Errors
    /// [`AllocateError::Log`].
    pub fn release_all_but(
        &mut self,
        lives: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>, AllocateError> {
        let dead: Vec<String> = self
            .by_sandbox
            .keys()
            .filter(|sandbox| !lives(sandbox))
            .cloned()
            .collect();
        for sandbox in &dead {
            self.release(sandbox)?;
        }
        Ok(dead)
    }

    /// The addresses of `sandbox`.
    #[must_use]
    pub fn get(&self, sandbox: &str) -> Option<Addresses> {
        self.by_sandbox.get(sandbox).copied()
    }

    /// The next free address after the last one given, over the first range that has one.
    fn free(&self, ranges: &[Range]) -> Result<Option<IpAddr>, AllocateError> {
        for range in ranges {
            // The last address of an IPv4 range is its broadcast address.
            let last = range
                .size()
                .saturating_sub(u64::from(range.address().is_ipv4()));
            let usable = RESERVED_FIRST..last;
            let start = self.next.get(range).copied().unwrap_or(RESERVED_FIRST);
            let start = if usable.contains(&start) {
                start
            } else {
                RESERVED_FIRST
            };
            let found = (start..last)
                .chain(RESERVED_FIRST..start)
                .filter_map(|offset| range.nth(offset))
                .find(|address| !self.taken.contains(address));
            if found.is_some() {
                return Ok(found);
            }
        }
        match ranges.first() {
            Some(range) => Err(AllocateError::Exhausted {
                range: *range,
                size: range.size(),
            }),
            None => Ok(None),
        }
    }

    fn write(&mut self, record: &Record) -> Result<(), AllocateError> {
        write_record(&mut self.log, record).map_err(|source| AllocateError::Log {
            path: self.path.clone(),
            source,
        })
    }
}

/// One line in one write, so that a crash leaves a whole line or a cut one at the end.
fn write_record(file: &mut File, record: &Record) -> io::Result<()> {
    let mut line = serde_json::to_vec(record)?;
    line.push(b'\n');
    file.write_all(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &tempfile::TempDir) -> Ipam {
        let mut ipam = Ipam::open(&dir.path().join("addresses.log")).unwrap();
        ipam.set_ranges(vec!["10.244.1.0/29".parse().unwrap()]);
        ipam
    }

    fn v4(addresses: Addresses) -> String {
        addresses.v4.unwrap().to_string()
    }

    #[test]
    fn addresses_are_given_in_turn_and_a_freed_one_last() {
        let dir = tempfile::tempdir().unwrap();
        let mut ipam = open(&dir);
        assert_eq!(v4(ipam.allocate("a").unwrap()), "10.244.1.2");
        assert_eq!(v4(ipam.allocate("b").unwrap()), "10.244.1.3");
        assert_eq!(v4(ipam.allocate("a").unwrap()), "10.244.1.2");
        ipam.release("a").unwrap();
        let given: Vec<String> = ["c", "d", "e", "f"]
            .map(|name| v4(ipam.allocate(name).unwrap()))
            .to_vec();
        assert_eq!(
            given,
            ["10.244.1.4", "10.244.1.5", "10.244.1.6", "10.244.1.2"]
        );
        let error = ipam.allocate("g").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("all 8 addresses of 10.244.1.0/29 are taken")
        );
    }

    #[test]
    fn allocations_survive_a_restart_and_a_cut_off_line() {
        let dir = tempfile::tempdir().unwrap();
        let mut ipam = open(&dir);
        ipam.allocate("a").unwrap();
        ipam.allocate("b").unwrap();
        ipam.release("a").unwrap();
        drop(ipam);
        let path = dir.path().join("addresses.log");
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"add\":{\"sandb").unwrap();
        let mut ipam = open(&dir);
        assert_eq!(ipam.get("a"), None);
        assert_eq!(v4(ipam.get("b").unwrap()), "10.244.1.3");
        assert_eq!(v4(ipam.allocate("c").unwrap()), "10.244.1.2");
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
    }

    #[test]
    fn what_no_longer_lives_is_freed_and_no_range_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let mut ipam = open(&dir);
        ipam.allocate("a").unwrap();
        ipam.allocate("b").unwrap();
        assert_eq!(
            ipam.release_all_but(|sandbox| sandbox == "b").unwrap(),
            ["a"]
        );
        ipam.set_ranges(Vec::new());
        assert!(matches!(ipam.allocate("c"), Err(AllocateError::NoRange)));
    }

    #[test]
    fn a_dual_stack_node_gives_one_address_of_each_family() {
        let dir = tempfile::tempdir().unwrap();
        let mut ipam = open(&dir);
        ipam.set_ranges(vec![
            "10.244.1.0/24".parse().unwrap(),
            "fd00:10:244:1::/64".parse().unwrap(),
        ]);
        let both = ipam.allocate("a").unwrap();
        assert_eq!(v4(both), "10.244.1.2");
        assert_eq!(both.v6.unwrap().to_string(), "fd00:10:244:1::2");
    }
}
