//! Makes the BTF of an eBPF object acceptable to the kernel.
//!
//! The kernel refuses type names that are not C identifiers. bpf-linker 0.10 rewrites Rust's `Foo<T>` for structures but
//! not for unions, of which aya-log has one (`MaybeUninit<u8>`); without this, no object that logs could carry BTF.

use anyhow::{Context as _, Result, bail};
use object::{
    Object as _, ObjectSection as _,
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
};

/// include/uapi/linux/btf.h
const MAGIC: u16 = 0xeb9f;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_INT: u32 = 1;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;

/// Replaces, in the names of unions, every character that a C identifier cannot have.
///
/// # Errors
/// When the object has no BTF, or BTF that is not understood.
pub fn sanitize(object: &mut [u8]) -> Result<()> {
    let file = object::File::parse(&*object).context("parsing the eBPF object")?;
    let section = file.section_by_name(".BTF").context("the eBPF object has no BTF")?;
    let (offset, size) = section.file_range().context("the BTF section has no bytes")?;
    let (offset, size) = (usize::try_from(offset)?, usize::try_from(size)?);
    let btf = object.get_mut(offset..offset + size).context("the BTF section is outside the file")?;
    let header = Words(btf);
    if header.u32(0)? & 0xffff != u32::from(MAGIC) {
        bail!("the BTF section does not begin with BTF's magic number");
    }
    let header_len = header.at(4)?;
    let (types, types_len, strings) = (header_len + header.at(8)?, header.at(12)?, header_len + header.at(16)?);
    let mut names = Vec::new();
    let mut at = types;
    while at < types + types_len {
        let (name, info) = (header.at(at)?, header.u32(at + 4)?);
        let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
        if kind == KIND_UNION {
            names.push(strings + name);
        }
        at += 12
            + match kind {
                KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
                KIND_ARRAY => 12,
                KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12 * count,
                KIND_ENUM | KIND_FUNC_PROTO => 8 * count,
                _ => 0,
            };
    }
    for name in names {
        let bytes = btf.get_mut(name..).context("a BTF name is outside the strings")?;
        for byte in bytes.iter_mut().take_while(|byte| **byte != 0) {
            if !byte.is_ascii_alphanumeric() {
                *byte = b'_';
            }
        }
    }
    Ok(())
}

/// Returns the object without the debug information that the linker has made its BTF from. It is most of the object, and nobody reads it.
///
/// # Errors
/// When the object is not an ELF file.
pub fn strip(object: &[u8]) -> Result<Vec<u8>> {
    let mut file = Builder::read(object).context("parsing the eBPF object")?;
    for section in &mut file.sections {
        section.delete = [&b".debug_"[..], b".rel.debug_"].iter().any(|prefix| section.name.starts_with(prefix));
    }
    file.delete_orphans();
    // LLVM has one section for the names of sections and of symbols; what is written here has two.
    let names = file.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = SHT_STRTAB;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    file.write(&mut stripped).context("writing the eBPF object")?;
    Ok(stripped)
}

/// Little-endian words of a byte string.
struct Words<'a>(&'a [u8]);

impl Words<'_> {
    fn u32(&self, at: usize) -> Result<u32> {
        let bytes = self.0.get(at..at + 4).context("the BTF section is too short")?;
        Ok(u32::from_le_bytes(bytes.try_into()?))
    }

    fn at(&self, at: usize) -> Result<usize> {
        Ok(self.u32(at)? as usize)
    }
}
