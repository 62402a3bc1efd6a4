//! What the build needs of the datapath: verify every program, or put the packet programs on a
//! device to look at them.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is what the tool is for"
)]

use std::error::Error;
use std::io::{self, Read as _};
use std::process::ExitCode;

use node_agent_datapath::{Playground, verify_all};

const USAGE: &str = "usage: datapath-tool verify | load --iface DEVICE";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        ["verify"] => verify(),
        ["load", "--iface", device] => load(device),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(error.as_ref());
            ExitCode::FAILURE
        }
    }
}

fn report(error: &dyn Error) {
    eprintln!("datapath-tool: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  because: {error}");
        cause = error.source();
    }
}

/// Prints one JSON array: what the verifier said of each program.
fn verify() -> Result<(), Box<dyn Error>> {
    println!("{}", serde_json::to_string_pretty(&verify_all()?)?);
    Ok(())
}

/// Holds the programs on a device until standard input ends or a signal does; then the kernel takes
/// them off by itself.
fn load(device: &str) -> Result<(), Box<dyn Error>> {
    let playground = Playground::open(device)?;
    for (place, id) in playground.attached() {
        println!("program {id}: {place}");
    }
    io::stdin().lock().read_to_end(&mut Vec::new())?;
    Ok(())
}
