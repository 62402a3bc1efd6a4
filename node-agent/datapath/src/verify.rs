//! Loads every program into this kernel and reports what the verifier said, leaving nothing behind.
//!
//! The library's own load hides the verifier's account of a success, and with it the stack depth;
//! so the instructions are relocated here and given to the kernel with a log of our own.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::Instant;

use aya_obj::Object;
use aya_obj::generated::bpf_insn;
use ebpf_abi::config::{CONFIG_GLOBAL, Config};
use ebpf_abi::program::{Hook, PROGRAM_PICK, PROGRAMS, ProgramSpec};
use serde::Serialize;
use zerocopy::IntoBytes as _;

use crate::attach::socket_hook;
use crate::load::{LoadError, LoadedObject, load_maps};
use crate::objects::{self, NotBuilt};
use crate::sys::{FunctionTypes, ProgramCode, ProgramHandle, ProgramKind, load_btf};

/// What the verifier said of one program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    pub object: String,
    pub program: String,
    /// Instructions walked.
    pub verified_insns: u32,
    /// Of the deepest chain of calls; the kernel allows 512.
    pub stack_bytes: u32,
    pub load_us: u64,
    /// Bytes of machine code.
    pub jited_bytes: u32,
}

/// Why a program could not be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    NotBuilt(#[from] NotBuilt),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("read object {object}: {reason}")]
    Object {
        object: &'static str,
        reason: String,
    },
    #[error("the kernel refused program {program} of object {object}: {source}\n{log}")]
    Refused {
        object: &'static str,
        program: &'static str,
        /// The verifier's words.
        log: String,
        source: io::Error,
    },
}

/// Loads every program of a node, and the selection test program if it was built, one by one.
/// # Errors
/// [`VerifyError`] of the first that is refused.
pub fn verify_all() -> Result<Vec<Verified>, VerifyError> {
    let mut all = Vec::new();
    let mut objects: Vec<&'static str> = PROGRAMS.iter().map(|program| program.object).collect();
    objects.dedup();
    if objects::object(PROGRAM_PICK.object).is_ok() {
        objects.push(PROGRAM_PICK.object);
    }
    for object in objects {
        let maps = load_maps(object)?;
        let (code, btf) = relocated(object, &maps)?;
        let programs = PROGRAMS.iter().chain([&PROGRAM_PICK]);
        for spec in programs.filter(|spec| spec.object == object) {
            all.push(verify(&code, btf.as_ref(), spec)?);
        }
    }
    Ok(all)
}

fn broken(object: &'static str, error: &dyn std::fmt::Display) -> VerifyError {
    VerifyError::Object {
        object,
        reason: error.to_string(),
    }
}

/// The object with the descriptors of its maps and its calls put in.
fn relocated(
    name: &'static str,
    maps: &LoadedObject,
) -> Result<(Object, Option<OwnedFd>), VerifyError> {
    let bytes = objects::object(name)?;
    let mut object = Object::parse(bytes).map_err(|error| broken(name, &error))?;
    let config = Config::DEFAULT;
    let globals = HashMap::from([(CONFIG_GLOBAL, (config.as_bytes(), false))]);
    object
        .patch_map_data(globals)
        .map_err(|error| broken(name, &error))?;
    let mut btf = None;
    if let Some(features) = aya::features().btf() {
        let types = object
            .fixup_and_sanitize_btf(features)
            .map_err(|error| broken(name, &error))?;
        if let Some(types) = types {
            btf = Some(load_btf(&types.to_bytes()).map_err(|error| broken(name, &error))?);
        }
    }
    let definitions: Vec<_> = object.maps.drain().collect();
    let sections: HashSet<usize> = object
        .functions
        .keys()
        .map(|(section, _)| *section)
        .collect();
    let with_fds = definitions.iter().filter_map(|(name, map)| {
        let fd = maps.map_fd(name)?;
        Some((name.as_str(), fd.as_raw_fd(), map))
    });
    object
        .relocate_maps(with_fds, &sections)
        .map_err(|error| broken(name, &error))?;
    object
        .relocate_calls(&sections)
        .map_err(|error| broken(name, &error))?;
    Ok((object, btf))
}

/// An instruction as the kernel reads it (`struct bpf_insn`, in the host's byte order).
fn instruction(insn: &bpf_insn) -> [u8; 8] {
    #[expect(
        clippy::host_endian_bytes,
        reason = "the kernel's ABI is in the host's order"
    )]
    let (offset, immediate) = (insn.off.to_ne_bytes(), insn.imm.to_ne_bytes());
    let registers = insn.dst_reg() | (insn.src_reg() << 4);
    let [o0, o1] = offset;
    let [i0, i1, i2, i3] = immediate;
    [insn.code, registers, o0, o1, i0, i1, i2, i3]
}

fn kind(spec: &ProgramSpec) -> ProgramKind {
    match spec.hook {
        Hook::CgroupSockAddr => ProgramKind::CgroupSockAddr,
        Hook::CgroupSockRelease => ProgramKind::CgroupSock,
        Hook::VethIngress | Hook::VethEgress | Hook::TestRun => ProgramKind::SchedCls,
    }
}

fn verify(
    object: &Object,
    btf: Option<&OwnedFd>,
    spec: &ProgramSpec,
) -> Result<Verified, VerifyError> {
    let missing = || broken(spec.object, &format!("it has no program {}", spec.name));
    let program = object.programs.get(spec.name).ok_or_else(missing)?;
    let function = object
        .functions
        .get(&program.function_key())
        .ok_or_else(missing)?;
    let instructions: Vec<u8> = function.instructions.iter().flat_map(instruction).collect();
    let functions = function.func_info.func_info_bytes();
    let code = ProgramCode {
        kind: kind(spec),
        name: spec.name,
        license: &program.license,
        attach_type: socket_hook(spec.name),
        instructions: &instructions,
        types: btf.map(|btf| FunctionTypes {
            btf: btf.as_fd(),
            functions: &functions,
            record_len: function.func_info_rec_size,
        }),
    };
    let mut log = Vec::new();
    let started = Instant::now();
    let handle = ProgramHandle::load(code, &mut log);
    let elapsed = started.elapsed();
    let log = String::from_utf8_lossy(&log).into_owned();
    let info = handle
        .and_then(|handle| handle.info())
        .map_err(|source| VerifyError::Refused {
            object: spec.object,
            program: spec.name,
            log: log.clone(),
            source,
        })?;
    Ok(Verified {
        object: spec.object.to_owned(),
        program: spec.name.to_owned(),
        verified_insns: info.verified_instructions,
        stack_bytes: deepest_chain(&function.instructions, &frames(&log)),
        load_us: u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
        jited_bytes: info.machine_bytes,
    })
}

/// The frames of the line `stack depth 48+16` of the verifier's log: that of the program itself,
/// then those of its functions in the order of their code.
fn frames(log: &str) -> Vec<u32> {
    let line = log
        .lines()
        .find_map(|line| line.strip_prefix("stack depth "));
    let depths = line.into_iter().flat_map(|depths| depths.split('+'));
    depths
        .filter_map(|depth| depth.trim().parse().ok())
        .collect()
}

/// `BPF_CALL` of a function of the same program, and `BPF_LD | BPF_IMM | BPF_DW` of its address.
const CALL: (u8, u8) = (0x85, 1);
const FUNCTION: (u8, u8) = (0x18, 4);
/// The kernel rounds each frame up (`check_max_stack_depth`) and allows so many of them.
const FRAME_STEP: u32 = 32;
const FRAMES_MAX: usize = 8;

/// The function that an instruction calls, or whose address it takes for a callback.
fn callee(at: usize, insn: &bpf_insn) -> Option<usize> {
    let kind = (insn.code, insn.src_reg());
    let offset = isize::try_from(insn.imm).ok()?;
    (kind == CALL || kind == FUNCTION).then(|| (at + 1).checked_add_signed(offset))?
}

/// Bytes of stack of the deepest chain of calls, by the kernel's rule. Without frames, 0.
fn deepest_chain(instructions: &[bpf_insn], frames: &[u32]) -> u32 {
    let numbered = || instructions.iter().enumerate();
    let mut starts: Vec<usize> = numbered()
        .filter_map(|(at, insn)| callee(at, insn))
        .collect();
    starts.push(0);
    starts.sort_unstable();
    starts.dedup();
    let function_at = |at: usize| starts.partition_point(|start| *start <= at) - 1;
    let calls: BTreeSet<(usize, usize)> = numbered()
        .filter_map(|(at, insn)| Some((function_at(at), function_at(callee(at, insn)?))))
        .collect();
    chain(0, &calls, frames, FRAMES_MAX)
}

fn chain(function: usize, calls: &BTreeSet<(usize, usize)>, frames: &[u32], left: usize) -> u32 {
    let Some(frame) = frames.get(function).filter(|_| left > 0) else {
        return 0;
    };
    let callees = calls.range((function, 0)..=(function, usize::MAX));
    let deepest = callees
        .map(|(_, callee)| chain(*callee, calls, frames, left - 1))
        .max();
    (*frame).max(1).next_multiple_of(FRAME_STEP) + deepest.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(distance: i32) -> bpf_insn {
        let mut insn = exit();
        insn.code = CALL.0;
        insn.set_src_reg(CALL.1);
        insn.imm = distance;
        insn
    }

    fn exit() -> bpf_insn {
        bpf_insn {
            code: 0x95,
            _bitfield_align_1: [],
            _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
            off: 0,
            imm: 0,
        }
    }

    #[test]
    fn frames_are_read_from_the_verifiers_log() {
        let log = "verification time 50 usec\nstack depth 48+0+16\nprocessed 97 insns (limit 1)\n";
        assert_eq!(frames(log), [48, 0, 16]);
        assert_eq!(frames("processed 1 insns\n"), [0_u32; 0]);
    }

    #[test]
    fn the_deepest_chain_counts_and_not_the_sum_of_all_functions() {
        // 0: calls 2 and 3; 2: exit; 3: calls 5; 5: exit
        let code = [call(2), call(2), exit(), exit(), call(0), exit()];
        // Functions start at 0, 3, 4 and 5.
        let frames = [40, 100, 8, 64];
        assert_eq!(deepest_chain(&code, &frames), 64 + 128);
        assert_eq!(deepest_chain(&code, &[8]), 32);
        assert_eq!(deepest_chain(&code, &[]), 0);
    }

    #[test]
    fn a_function_that_calls_itself_ends() {
        assert!(deepest_chain(&[call(-1), exit()], &[512]) <= 8 * 512);
    }
}
