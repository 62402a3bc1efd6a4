//! Programs and where they are attached.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use ebpf_abi::program::PROGRAMS;
use serde::{Deserialize, Serialize};

use super::{InspectError, Inspector};
use crate::sys::{Link, LinkTarget, ProgramHandle, ProgramInfo};

/// A loaded program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgramView {
    pub object: String,
    pub name: String,
    /// The kernel's id; changes with every start of the agent.
    pub id: u32,
    /// Instructions that the verifier walked; 0 before kernel 5.16.
    pub verified_instructions: u32,
    /// Bytes of machine code.
    pub machine_bytes: u32,
    /// Runs and their time, while statistics are switched on.
    pub runs: u64,
    pub run_time_ns: u64,
    /// Hooks that call it.
    pub attachments: u32,
}

/// A place where a program is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachmentView {
    pub program: String,
    pub program_id: u32,
    pub link_id: u32,
    /// `cgroup 1234`, `device 7`, or `gone`.
    pub target: String,
}

fn target(target: LinkTarget) -> String {
    match target {
        LinkTarget::Cgroup { id: 0 } | LinkTarget::Device { ifindex: 0 } => "gone".to_owned(),
        LinkTarget::Cgroup { id } => format!("cgroup {id}"),
        LinkTarget::Device { ifindex } => format!("device {ifindex}"),
        LinkTarget::Other { kind } => format!("link of type {kind}"),
    }
}

impl Inspector {
    /// All pinned links, by pin name.
    /// # Errors
    /// [`InspectError`].
    pub fn attachments(&self) -> Result<Vec<AttachmentView>, InspectError> {
        let directory = self.pins.links();
        let failed = |source: io::Error| InspectError::open(&directory, source);
        let mut names = Vec::new();
        for entry in fs::read_dir(&directory).map_err(failed)? {
            names.push(entry.map_err(failed)?.path());
        }
        names.sort();
        let mut views = Vec::with_capacity(names.len());
        for path in names {
            let info = match Link::open(&path).and_then(|link| link.info()) {
                Ok(info) => info,
                // Unpinned since the directory was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(InspectError::open(&path, source)),
            };
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // `from_pod_7`: the device is part of the pin's name, not of the program's.
            let program = PROGRAMS
                .iter()
                .map(|program| program.name)
                .filter(|program| name.starts_with(program))
                .max_by_key(|program| program.len())
                .map_or_else(|| name.to_string(), str::to_owned);
            views.push(AttachmentView {
                program,
                program_id: info.program_id,
                link_id: info.id,
                target: target(info.target),
            });
        }
        Ok(views)
    }

    /// All programs of this version, by object, as far as they are pinned.
    /// # Errors
    /// [`InspectError`].
    pub fn programs(&self) -> Result<Vec<ProgramView>, InspectError> {
        let mut attached: BTreeMap<u32, u32> = BTreeMap::new();
        for attachment in self.attachments()? {
            *attached.entry(attachment.program_id).or_default() += 1;
        }
        let mut views = Vec::new();
        for program in PROGRAMS {
            let path = self.pins.program(program.name);
            let info = match ProgramHandle::open(&path).and_then(|handle| handle.info()) {
                Ok(info) => info,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(InspectError::open(&path, source)),
            };
            let attachments = attached.get(&info.id).copied().unwrap_or(0);
            views.push(view(program.object, program.name, &info, attachments));
        }
        Ok(views)
    }
}

fn view(object: &str, name: &str, info: &ProgramInfo, attachments: u32) -> ProgramView {
    ProgramView {
        object: object.to_owned(),
        name: name.to_owned(),
        id: info.id,
        verified_instructions: info.verified_instructions,
        machine_bytes: info.machine_bytes,
        runs: info.runs,
        run_time_ns: info.run_time_ns,
        attachments,
    }
}
