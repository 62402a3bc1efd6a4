//! Brings the objects into the kernel against the pinned maps.
//!
//! Maps are created once and pinned; a later load uses what is pinned, after checking that it has
//! the layout this version expects. Programs are loaded anew each time: whoever attaches them swaps
//! them into the links that are there.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;

use aya::programs::{Program, ProgramError};
use aya::{Ebpf, EbpfError, EbpfLoader};
use ebpf_abi::config::{CONFIG_GLOBAL, Config, FLAG_SET_RETVAL};
use ebpf_abi::map::{MAPS, MapKind, MapSpec};
use ebpf_abi::program::{Hook, OBJECT_SOCK, PROGRAM_PICK, PROGRAMS, ProgramSpec};
use zerocopy::IntoBytes as _;

use crate::config::{DatapathConfig, MapProfile};
use crate::logs::ProgramLog;
use crate::objects::{self, NotBuilt};
use crate::pins::{Pins, PinsError, remove_pin};
use crate::sys;

/// Why programs or maps could not be brought into the kernel.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    NotBuilt(#[from] NotBuilt),
    #[error(transparent)]
    Pins(#[from] PinsError),
    #[error("load object {object}")]
    Object {
        object: &'static str,
        #[source]
        source: Box<EbpfError>,
    },
    #[error("object {object} has no program {program}: it was built from another version")]
    NoProgram {
        object: &'static str,
        program: &'static str,
    },
    #[error("the kernel refused program {program} of object {object}")]
    Program {
        object: &'static str,
        program: &'static str,
        #[source]
        source: Box<ProgramError>,
    },
    #[error(
        "pinned map {} has another layout than this version ({found}; expected {expected}): stop the agent, remove the pins below {} and start it again; connections through services break meanwhile",
        path.display(), path.parent().unwrap_or(path).display()
    )]
    Layout {
        path: PathBuf,
        expected: String,
        found: String,
    },
    #[error("copy a descriptor of object {object}")]
    Descriptor {
        object: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("open pinned map {}", path.display())]
    OpenMap {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("pin {}", path.display())]
    Pin {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A loaded object with its programs.
#[derive(Debug)]
pub(crate) struct LoadedObject {
    name: &'static str,
    ebpf: Ebpf,
}

impl LoadedObject {
    /// A program's descriptor.
    pub(crate) fn program(&self, name: &'static str) -> Result<BorrowedFd<'_>, LoadError> {
        let missing = LoadError::NoProgram {
            object: self.name,
            program: name,
        };
        let program = self.ebpf.program(name).ok_or(missing)?;
        let fd = program.fd().map_err(|source| LoadError::Program {
            object: self.name,
            program: name,
            source: Box::new(source),
        })?;
        Ok(fd.as_fd())
    }

    /// The descriptor of one of its maps.
    pub(crate) fn map_fd(&self, name: &str) -> Option<BorrowedFd<'_>> {
        use aya::maps::Map;
        // The kinds of map in the layout; the read-only data are an array.
        let (Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::LpmTrie(data)
        | Map::SkStorage(data)) = self.ebpf.map(name)?
        else {
            return None;
        };
        Some(data.fd().as_fd())
    }

    /// What its programs say; once.
    pub(crate) fn take_log(&mut self) -> Option<ProgramLog> {
        ProgramLog::open(self.name, &mut self.ebpf)
    }

    /// A program in the library's own form.
    pub(crate) fn program_mut(&mut self, name: &str) -> Option<&mut Program> {
        self.ebpf.program_mut(name)
    }
}

fn kernel_kind(kind: MapKind) -> sys::MapKind {
    match kind {
        MapKind::Hash => sys::MapKind::HASH,
        MapKind::LruHash => sys::MapKind::LRU_HASH,
        MapKind::MappedArray => sys::MapKind::ARRAY,
        MapKind::PerCpuArray => sys::MapKind::PER_CPU_ARRAY,
        MapKind::LpmTrie => sys::MapKind::LPM_TRIE,
        MapKind::SocketStorage => sys::MapKind::SK_STORAGE,
    }
}

fn layout(kind: sys::MapKind, key: u32, value: u32) -> String {
    format!(
        "{} with keys of {key} and values of {value} bytes",
        kind.name()
    )
}

/// Checks every map that is pinned already. Returns how many there are.
pub(crate) fn check_pinned(pins: &Pins) -> Result<usize, LoadError> {
    let mut pinned = 0;
    for spec in MAPS {
        let path = pins.map(spec.name);
        let map = match sys::Map::open(&path, sys::Access::ReadOnly) {
            Ok(map) => map,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(LoadError::OpenMap { path, source }),
        };
        let info = map.info();
        let expected = layout(kernel_kind(spec.kind), spec.key_size, spec.value_size);
        let found = layout(info.kind, info.key_size, info.value_size);
        if found != expected {
            return Err(LoadError::Layout {
                path,
                expected,
                found,
            });
        }
        pinned += 1;
    }
    Ok(pinned)
}

/// Loads one object against the pinned maps. Only the maps that are not pinned yet are created.
pub(crate) fn load_object(
    name: &'static str,
    pins: &Pins,
    config: &DatapathConfig,
) -> Result<LoadedObject, LoadError> {
    match load_once(name, Some(pins), config.profile, &config.programs) {
        // Kernels before 6.0 lack one helper; the verifier tells, a version number need not.
        Err(LoadError::Program { .. })
            if name == OBJECT_SOCK && config.programs.flags & FLAG_SET_RETVAL != 0 =>
        {
            let without = Config {
                flags: config.programs.flags & !FLAG_SET_RETVAL,
                ..config.programs
            };
            load_once(name, Some(pins), config.profile, &without)
        }
        result => result,
    }
}

/// Creates the maps of an object, for checks that must leave nothing behind; its programs are not
/// loaded yet.
pub(crate) fn load_maps(name: &'static str) -> Result<LoadedObject, LoadError> {
    open_object(name, None, MapProfile::Small, &Config::DEFAULT)
}

/// Loads one object with maps of its own: all of it goes when the value is dropped.
pub(crate) fn load_unpinned(name: &'static str) -> Result<LoadedObject, LoadError> {
    load_once(name, None, MapProfile::Small, &Config::DEFAULT)
}

/// Loads the selection test program against the pinned maps.
pub(crate) fn load_picks(pins: &Pins, config: &DatapathConfig) -> Result<LoadedObject, LoadError> {
    let mut object = open_object(
        PROGRAM_PICK.object,
        Some(pins),
        config.profile,
        &config.programs,
    )?;
    load_program(&mut object, &PROGRAM_PICK)?;
    Ok(object)
}

fn load_once(
    name: &'static str,
    pins: Option<&Pins>,
    profile: MapProfile,
    programs: &Config,
) -> Result<LoadedObject, LoadError> {
    let mut object = open_object(name, pins, profile, programs)?;
    for spec in PROGRAMS.iter().filter(|spec| spec.object == name) {
        load_program(&mut object, spec)?;
    }
    Ok(object)
}

fn open_object(
    name: &'static str,
    pins: Option<&Pins>,
    profile: MapProfile,
    programs: &Config,
) -> Result<LoadedObject, LoadError> {
    let bytes = objects::object(name)?;
    let mut loader = EbpfLoader::new();
    // No program relocates against the kernel's types; reading them costs tens of milliseconds.
    loader.btf(None);
    loader.override_global(CONFIG_GLOBAL, programs.as_bytes(), false);
    for spec in MAPS {
        if let Some(pins) = pins {
            loader.map_pin_path(spec.name, pins.map(spec.name));
        }
        if spec.entries != 0 {
            loader.map_max_entries(spec.name, profile.entries(spec));
        }
    }
    let ebpf = loader.load(bytes).map_err(|source| LoadError::Object {
        object: name,
        source: Box::new(source),
    })?;
    Ok(LoadedObject { name, ebpf })
}

fn load_program(object: &mut LoadedObject, spec: &ProgramSpec) -> Result<(), LoadError> {
    let missing = || LoadError::NoProgram {
        object: spec.object,
        program: spec.name,
    };
    let program = object.ebpf.program_mut(spec.name).ok_or_else(missing)?;
    let loaded = match (spec.hook, program) {
        (Hook::CgroupSockAddr, Program::CgroupSockAddr(program)) => program.load(),
        (Hook::CgroupSockRelease, Program::CgroupSock(program)) => program.load(),
        (
            Hook::VethIngress | Hook::VethEgress | Hook::TestRun,
            Program::SchedClassifier(program),
        ) => program.load(),
        (_, _) => return Err(missing()),
    };
    loaded.map_err(|source| LoadError::Program {
        object: spec.object,
        program: spec.name,
        source: Box::new(source),
    })
}

/// Pins a program by its name, in place of the one of an earlier start, so that inspection finds it
/// whether or not it is attached.
pub(crate) fn pin_program(
    object: &LoadedObject,
    name: &'static str,
    pins: &Pins,
) -> Result<(), LoadError> {
    let path = pins.program(name);
    remove_pin(&path)?;
    sys::pin(object.program(name)?, &path).map_err(|source| LoadError::Pin { path, source })
}

/// Creates and pins maps that no object refers to, so that a node always has all of them.
pub(crate) fn create_missing(pins: &Pins, profile: MapProfile) -> Result<(), LoadError> {
    for spec in MAPS {
        let path = pins.map(spec.name);
        if fs::exists(&path).unwrap_or(false) || spec.kind == MapKind::SocketStorage {
            continue; // socket storage needs type information, which only an object carries
        }
        create(spec, profile)
            .and_then(|map| sys::pin(map.as_fd(), &path))
            .map_err(|source| LoadError::Pin { path, source })?;
    }
    Ok(())
}

fn create(spec: &MapSpec, profile: MapProfile) -> io::Result<sys::Map> {
    sys::Map::create(
        spec.name,
        kernel_kind(spec.kind),
        spec.key_size,
        spec.value_size,
        profile.entries(spec),
    )
}
