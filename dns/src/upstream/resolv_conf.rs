//! Upstream servers from the node's `resolv.conf`.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// Servers that are used at most; glibc takes three, a list of more is a mistake.
const UPSTREAMS_MAX: usize = 8;

/// Why the file could not be used.
#[derive(Debug, thiserror::Error)]
#[error("read upstream servers from {}", path.display())]
pub struct ResolvConfError {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// The `nameserver` lines of a file, port 53 each. Lines that are no addresses are skipped.
///
/// # Errors
/// When the file cannot be read.
pub fn upstreams_from_resolv_conf(path: &Path) -> Result<Vec<SocketAddr>, ResolvConfError> {
    let text = std::fs::read_to_string(path).map_err(|source| ResolvConfError {
        path: path.to_owned(),
        source,
    })?;
    Ok(parse(&text))
}

fn parse(text: &str) -> Vec<SocketAddr> {
    let addresses = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = words
            .next()
            .filter(|word| *word == "nameserver")
            .and_then(|_| words.next())?;
        // A zone (`fe80::1%eth0`) names an interface that a server bound elsewhere cannot use.
        Some(SocketAddr::new(address.parse::<IpAddr>().ok()?, 53))
    });
    addresses.take(UPSTREAMS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameserver_lines_are_taken_and_all_else_is_skipped() {
        let text = "# nameserver 1.1.1.1\nsearch a b\n nameserver  10.0.0.1  # one\n\
                    nameserver ::1\nnameserver fe80::1%eth0\nnameserver\nnameservers 9.9.9.9\n\
                    options ndots:5\n";
        let expected: Vec<SocketAddr> =
            vec!["10.0.0.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()];
        assert_eq!(parse(text), expected);
        assert_eq!(
            parse(&"nameserver 10.0.0.1\n".repeat(20)).len(),
            UPSTREAMS_MAX
        );
    }
}
