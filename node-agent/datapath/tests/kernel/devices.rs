//! Commands in the namespaces of the test's thread.

use std::process::Command;

/// Runs a command; it must succeed.
pub(crate) fn run(command: &[&str]) -> String {
    let output = Command::new(command[0])
        .args(&command[1..])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A veth pair whose one side has this name; returns that side's index.
pub(crate) fn veth(name: &str) -> u32 {
    let peer = format!("{name}-peer");
    run(&[
        "ip", "link", "add", name, "type", "veth", "peer", "name", &peer,
    ]);
    let shown = run(&["ip", "-o", "link", "show", name]);
    shown.split(':').next().unwrap().trim().parse().unwrap()
}

/// Deletes a device.
pub(crate) fn delete_link(name: &str) {
    run(&["ip", "link", "delete", name]);
}
