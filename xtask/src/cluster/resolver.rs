//! Which name servers a node forwards to: changes when a system keeps its servers elsewhere.

use std::net::IpAddr;

/// systemd-resolved keeps the real servers here when `/etc/resolv.conf` names its stub.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// The machine's name servers that a node can reach: not those on the host's loopback.
pub(crate) fn upstream() -> Vec<IpAddr> {
    FILES
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .map(|text| reachable(&text))
        .find(|servers| !servers.is_empty())
        .unwrap_or_default()
}

/// IPv4 only: the underlay has no IPv6.
fn reachable(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|server| server.trim().parse::<IpAddr>().ok())
        .filter(|server| server.is_ipv4() && !server.is_loopback())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::reachable;

    #[test]
    fn a_server_on_the_hosts_loopback_is_left_out() {
        let text = "nameserver 127.0.0.53\nsearch x\nnameserver 192.0.2.53\nnameserver fd00::1\n";
        assert_eq!(
            reachable(text),
            ["192.0.2.53".parse::<std::net::IpAddr>().unwrap()]
        );
    }
}
