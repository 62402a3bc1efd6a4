//! The versions of etcd that the tests run: the system's, and 3.5 as `cargo xtask setup` fetches it.

use std::path::Path;
use std::process::Command;

/// Which etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// The distribution's: 3.4 on Debian 12.
    System,
    /// 3.5; where it could not be fetched, the system's again.
    Newer,
}

/// Beside the tree's other tools.
const NEWER: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../target/tools/etcd-3.5/usr/bin/etcd"
);

impl Version {
    fn program(self) -> &'static str {
        match self {
            Self::Newer if Path::new(NEWER).exists() => NEWER,
            Self::Newer if std::env::var_os("CI").is_some() => {
                panic!("{NEWER} is missing: run `cargo xtask setup`")
            }
            Self::Newer => {
                println!("{NEWER} is missing (`cargo xtask setup`): using the system's etcd");
                "etcd"
            }
            Self::System => "etcd",
        }
    }

    /// A server that is taken down with this process, should it be killed.
    pub(crate) fn command(self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", self.program()]);
        command
    }

    /// Whether it answers progress requests in the order of events: from 3.4.31 and 3.5.13 on.
    pub(crate) fn answers_progress_in_order(self) -> bool {
        let output = Command::new(self.program()).arg("--version").output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        let version = text.lines().next().and_then(|line| line.rsplit(' ').next());
        let numbers: Vec<u32> = version
            .unwrap()
            .split('.')
            .map(|number| number.parse().unwrap())
            .collect();
        match numbers[..] {
            [3, 4, patch] => patch >= 31,
            [3, 5, patch] => patch >= 13,
            _ => true,
        }
    }
}
