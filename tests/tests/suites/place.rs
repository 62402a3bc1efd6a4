//! Where one test works: a namespace, a directory, and the clients of one version as a user would
//! have them. Changes when what a terminal holds does.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tests::{Cluster, Output};

/// A command that takes longer than this hangs.
const HANGS_AFTER_SECONDS: &str = "60";

pub(crate) struct Place<'a> {
    cluster: &'a Cluster,
    namespace: String,
    /// Home directory, kubeconfig, programs; and `work`, the current directory.
    dir: TempDir,
}

impl<'a> Place<'a> {
    /// `programs`: name as typed, and file below the tools' directory.
    pub(crate) fn new(
        cluster: &'a Cluster,
        namespace: &str,
        programs: &[(&str, &str)],
    ) -> Result<Self> {
        let dir = TempDir::new().context("make a directory")?;
        for sub in ["bin", "work"] {
            std::fs::create_dir(dir.path().join(sub)).with_context(|| format!("make {sub}/"))?;
        }
        for (name, tool) in programs {
            let tool = tests::tools().join(tool);
            ensure!(
                tool.exists(),
                "{} is not there: run `cargo xtask setup`",
                tool.display()
            );
            symlink(&tool, dir.path().join("bin").join(name)).context("link a program")?;
        }
        let kubeconfig = std::fs::read_to_string(cluster.kubeconfig()).context("kubeconfig")?;
        // A context ends with its user.
        let (head, tail) = kubeconfig
            .rsplit_once("    user: ")
            .context("a context in the kubeconfig")?;
        let here = format!("{head}    namespace: {namespace}\n    user: {tail}");
        std::fs::write(dir.path().join("kubeconfig"), here).context("write a kubeconfig")?;
        cluster.namespace(namespace)?;
        Ok(Self {
            cluster,
            namespace: namespace.to_owned(),
            dir,
        })
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// A command line, as the shell reads it.
    pub(crate) fn shell(&self, line: &str) -> Result<Output> {
        let mut command = Command::new("timeout");
        command.args([HANGS_AFTER_SECONDS, "sh", "-c", line]);
        Output::of(self.at_home(&mut command), b"")
    }

    /// Sets what a program finds: this place and nothing of the user's own.
    pub(crate) fn at_home<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", self.dir.path().join("bin").display());
        command
            .current_dir(self.dir.path().join("work"))
            .env("HOME", self.dir.path())
            .env("PATH", path)
            .env("KUBECONFIG", self.kubeconfig())
            .env("KUBECACHEDIR", self.cluster.client_cache())
            .env("NS", &self.namespace)
            .env("SUITES", directory())
    }

    /// The namespace goes without being waited for: the cluster goes too.
    pub(crate) fn leave(self) -> Result<()> {
        let delete = ["delete", "namespace", &self.namespace, "--wait=false"];
        self.cluster.kubectl(&delete)?.success().map(drop)
    }
}

/// The suites' own directory in the source tree.
pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suites")
}
