//! Go's own description of the API structs, read from a kubectl binary; changes when Go changes
//! the layout of its type information.
//!
//! The definitions upstream publishes lack what its codecs follow: protobuf numbers, which fields
//! are pointers, which are left out when empty, and the Go types that error messages name. All of
//! it stands in the struct tags and type descriptors that Go links into every program for
//! reflection. Layout: `internal/abi/type.go` of Go 1.26 (`Type`, `StructType`, `Name`,
//! `UncommonType`); offsets are from the start of `.rodata`, pointers are absolute because
//! kubectl is linked statically at a fixed address.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

const KIND_MASK: u8 = 31;
const KIND_MAP: u8 = 21;
const KIND_POINTER: u8 = 22;
const KIND_SLICE: u8 = 23;
const KIND_STRUCT: u8 = 25;
const KIND_ARRAY: u8 = 17;
const FLAG_UNCOMMON: u8 = 1;
const FLAG_EXTRA_STAR: u8 = 2;
/// Sizes of `abi.Type`, `abi.StructType`, `abi.StructField`.
const TYPE_LEN: usize = 48;
const STRUCT_LEN: usize = 80;
const FIELD_LEN: usize = 24;

/// The structs of one program by package path and name.
pub(super) struct GoTypes {
    structs: BTreeMap<(String, String), Vec<GoField>>,
}

/// One field of a Go struct, embedded structs flattened as JSON does.
#[derive(Debug, Clone)]
pub(super) struct GoField {
    /// Name in JSON.
    pub(super) json: String,
    /// Protobuf number, 0 when the field is in no message.
    pub(super) number: u32,
    /// Numbers of the embedded structs' own messages, outermost first, where JSON flattens them.
    pub(super) inline: Vec<u32>,
    pub(super) pointer: bool,
    /// Left out of JSON when empty.
    pub(super) omit_empty: bool,
    /// The Go type in messages, without the pointer: `int32`, `v1.Protocol`, `[]v1.Container`.
    pub(super) go_type: String,
    /// A map whose values are a named slice: a message with one repeated field.
    pub(super) wrapped: bool,
}

impl GoTypes {
    /// The fields of `name` in package `path`.
    pub(super) fn fields(&self, path: &str, name: &str) -> Option<&[GoField]> {
        self.structs
            .get(&(path.to_owned(), name.to_owned()))
            .map(Vec::as_slice)
    }
}

/// Reads the program at `path`.
pub(super) fn read(path: &Path) -> Result<GoTypes> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let image = Image::parse(&bytes).with_context(|| format!("parse {}", path.display()))?;
    let mut seen = HashSet::new();
    let mut structs = BTreeMap::new();
    let mut pending = image.typelinks()?;
    while let Some(address) = pending.pop() {
        if !seen.insert(address) {
            continue;
        }
        let ty = image.ty(address)?;
        match ty.kind {
            KIND_POINTER | KIND_SLICE | KIND_ARRAY => pending.push(image.word(ty.body)?),
            KIND_MAP => pending.extend([image.word(ty.body)?, image.word(ty.body + 8)?]),
            KIND_STRUCT => {
                pending.extend(image.struct_fields(&ty)?.into_iter().map(|field| field.ty));
                let package = image.package(&ty)?;
                if package.starts_with("k8s.io/") {
                    let name = ty.name.rsplit('.').next().unwrap_or_default().to_owned();
                    let fields = image.flatten(&ty, &[]).with_context(|| ty.name.clone())?;
                    structs.insert((package, name), fields);
                }
            }
            _ => {}
        }
    }
    ensure!(
        !structs.is_empty(),
        "{} holds no Kubernetes types",
        path.display()
    );
    Ok(GoTypes { structs })
}

/// A statically linked ELF image: loaded sections and where type information lies.
struct Image<'a> {
    bytes: &'a [u8],
    /// Address, file offset, length.
    sections: Vec<(u64, usize, usize)>,
    types: u64,
    typelink: (usize, usize),
}

struct Type {
    kind: u8,
    flags: u8,
    name: String,
    /// File offset of the descriptor and of what follows `abi.Type` (as an address).
    at: usize,
    body: u64,
}

struct RawField {
    tag: String,
    ty: u64,
}

impl<'a> Image<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self> {
        ensure!(
            bytes.starts_with(b"\x7fELF\x02\x01"),
            "not a 64-bit little-endian ELF file"
        );
        let mut image = Self {
            bytes,
            sections: Vec::new(),
            types: 0,
            typelink: (0, 0),
        };
        let headers = usize::try_from(image.u64_at(0x28)?)?;
        let count = usize::from(image.u16_at(0x3c)?);
        let names = headers + usize::from(image.u16_at(0x3e)?) * 64;
        let names = usize::try_from(image.u64_at(names + 24)?)?;
        for index in 0..count {
            let header = headers + index * 64;
            let name = image.c_string(names + usize::try_from(image.u32_at(header)?)?)?;
            let bits = image.u32_at(header + 4)?;
            let address = image.u64_at(header + 16)?;
            let offset = usize::try_from(image.u64_at(header + 24)?)?;
            let len = usize::try_from(image.u64_at(header + 32)?)?;
            if bits == 1 && address != 0 {
                image.sections.push((address, offset, len));
            }
            match name.as_str() {
                ".rodata" => image.types = address,
                ".typelink" => image.typelink = (offset, len),
                _ => {}
            }
        }
        ensure!(
            image.types != 0 && image.typelink.1 != 0,
            "no Go type information"
        );
        Ok(image)
    }

    fn slice(&self, at: usize, len: usize) -> Result<&'a [u8]> {
        self.bytes
            .get(at..at + len)
            .with_context(|| format!("offset {at} is outside the file"))
    }

    fn u16_at(&self, at: usize) -> Result<u16> {
        Ok(u16::from_le_bytes(self.slice(at, 2)?.try_into()?))
    }

    fn u32_at(&self, at: usize) -> Result<u32> {
        Ok(u32::from_le_bytes(self.slice(at, 4)?.try_into()?))
    }

    fn u64_at(&self, at: usize) -> Result<u64> {
        Ok(u64::from_le_bytes(self.slice(at, 8)?.try_into()?))
    }

    fn c_string(&self, at: usize) -> Result<String> {
        let rest = self.bytes.get(at..).context("a name outside the file")?;
        let end = rest
            .iter()
            .position(|byte| *byte == 0)
            .context("an unterminated name")?;
        Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
    }

    fn offset(&self, address: u64) -> Result<usize> {
        for (start, offset, len) in &self.sections {
            if let Some(inside) = address.checked_sub(*start) {
                let inside = usize::try_from(inside)?;
                if inside < *len {
                    return Ok(offset + inside);
                }
            }
        }
        bail!("address {address:#x} lies in no section")
    }

    fn word(&self, address: u64) -> Result<u64> {
        self.u64_at(self.offset(address)?)
    }

    fn typelinks(&self) -> Result<Vec<u64>> {
        let (at, len) = self.typelink;
        (0..len / 4)
            .map(|index| Ok(self.types + u64::from(self.u32_at(at + index * 4)?)))
            .collect()
    }

    /// Name and tag at `address`: a flag byte, then length-prefixed texts.
    fn name(&self, address: u64) -> Result<(String, String)> {
        let at = self.offset(address)?;
        let tagged = self.slice(at, 1)?[0] & 2 != 0;
        let (name, next) = self.text(at + 1)?;
        let tag = if tagged {
            self.text(next)?.0
        } else {
            String::new()
        };
        Ok((name, tag))
    }

    fn text(&self, mut at: usize) -> Result<(String, usize)> {
        let mut len = 0_usize;
        let mut shift = 0;
        loop {
            let byte = self.slice(at, 1)?[0];
            at += 1;
            len |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                break;
            }
            ensure!(shift < 28, "a name longer than 2^28");
        }
        Ok((
            String::from_utf8_lossy(self.slice(at, len)?).into_owned(),
            at + len,
        ))
    }

    fn ty(&self, address: u64) -> Result<Type> {
        let at = self.offset(address)?;
        let flags = self.slice(at + 20, 1)?[0];
        let kind = self.slice(at + 23, 1)?[0] & KIND_MASK;
        let (name, _) = self.name(self.types + u64::from(self.u32_at(at + 40)?))?;
        let name = match name.strip_prefix('*') {
            Some(rest) if flags & FLAG_EXTRA_STAR != 0 => rest.to_owned(),
            _ => name,
        };
        Ok(Type {
            kind,
            flags,
            name,
            at,
            body: address + TYPE_LEN as u64,
        })
    }

    fn package(&self, ty: &Type) -> Result<String> {
        if ty.flags & FLAG_UNCOMMON == 0 {
            return Ok(String::new());
        }
        match self.u32_at(ty.at + STRUCT_LEN)? {
            0 => Ok(String::new()),
            offset => Ok(self.name(self.types + u64::from(offset))?.0),
        }
    }

    fn struct_fields(&self, ty: &Type) -> Result<Vec<RawField>> {
        let count = usize::try_from(self.word(ty.body + 16)?)?;
        if count == 0 {
            return Ok(Vec::new());
        }
        let first = self.offset(self.word(ty.body + 8)?)?;
        (0..count)
            .map(|index| {
                let at = first + index * FIELD_LEN;
                let (_, tag) = self.name(self.u64_at(at)?)?;
                Ok(RawField {
                    tag,
                    ty: self.u64_at(at + 8)?,
                })
            })
            .collect()
    }

    /// The fields as JSON has them; those of an embedded struct carry its number as `inline`.
    fn flatten(&self, ty: &Type, inline: &[u32]) -> Result<Vec<GoField>> {
        let mut fields = Vec::new();
        for raw in self.struct_fields(ty)? {
            let Some(json) = tag_value(&raw.tag, "json") else {
                continue;
            };
            let number = match tag_value(&raw.tag, "protobuf") {
                Some(tag) if tag != "-" => tag
                    .split(',')
                    .nth(1)
                    .context("a protobuf tag without a number")?
                    .parse()?,
                _ => 0,
            };
            let mut field = self.ty(raw.ty)?;
            let pointer = field.kind == KIND_POINTER;
            if pointer {
                field = self.ty(self.word(field.body)?)?;
            }
            let (name, options) = json.split_once(',').unwrap_or((json, ""));
            if name.is_empty() {
                let path: Vec<u32> = inline
                    .iter()
                    .copied()
                    .chain((number != 0).then_some(number))
                    .collect();
                let mut embedded = self.flatten(&field, &path)?;
                if number == 0 {
                    // In no message: `TypeMeta`, which travels in the envelope.
                    embedded.iter_mut().for_each(|field| field.number = 0);
                }
                fields.extend(embedded);
                continue;
            }
            let wrapped = field.kind == KIND_MAP && {
                let value = self.ty(self.word(field.body + 8)?)?;
                value.kind == KIND_SLICE && !value.name.starts_with('[')
            };
            fields.push(GoField {
                json: name.to_owned(),
                number,
                inline: inline.to_vec(),
                pointer,
                omit_empty: options.contains("omit"),
                go_type: field.name,
                wrapped,
            });
        }
        Ok(fields)
    }
}

/// The value of `key:"value"` in a struct tag.
fn tag_value<'t>(tag: &'t str, key: &str) -> Option<&'t str> {
    let (_, rest) = tag.split_once(&format!("{key}:\""))?;
    rest.split_once('"').map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::tag_value;

    #[test]
    fn a_struct_tag_gives_its_values() {
        let tag = r#"json:"name,omitempty" protobuf:"bytes,1,opt,name=name""#;
        assert_eq!(tag_value(tag, "json"), Some("name,omitempty"));
        assert_eq!(tag_value(tag, "protobuf"), Some("bytes,1,opt,name=name"));
        assert_eq!(tag_value(tag, "patchStrategy"), None);
    }
}
