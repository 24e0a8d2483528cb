//! The tracer's eBPF object as instructions, of which any number of programs are made: for one event or for many, of one kind or
//! another.
//!
//! aya makes the maps and loads every program of an object once. Functions and raw tracepoints want a program for each event.

use std::{
    collections::HashSet,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use aya_obj::generated::{bpf_attach_type, bpf_func_id, bpf_insn, bpf_prog_type};
use relay_common::{placeholder, trace::COMMON_FIELDS};

use super::{
    hook::{Guard, Hook},
    instruction::{CALL, MOVE, load_from_context, store_in_record},
    preemption::{self, Places},
    settings::Constants,
};
use crate::{
    environment::KERNEL,
    sys::{self, ProgramLoad},
};
use relay_channel::bpf;

/// The object, ready to be loaded from.
#[derive(Debug)]
pub struct Object {
    object: aya_obj::Object,
    btf: OwnedFd,
    constants: Option<Constants>,
    /// The workspaces are shared by all CPUs.
    shared: bool,
}

impl Object {
    /// Parses an object whose maps `ebpf` has; `shared` when the workspaces are shared by all CPUs.
    ///
    /// # Errors
    /// When it is not the object that `ebpf` was made of.
    pub fn new(bytes: &[u8], ebpf: &Ebpf, shared: bool) -> Result<Self> {
        let mut object = aya_obj::Object::parse(&bpf::fitted(bytes)).context("parsing the eBPF object")?;
        let maps: Vec<(String, RawFd, aya_obj::Map)> = ebpf
            .maps()
            .filter_map(|(name, map)| {
                Some((name.to_owned(), data(map)?.fd().as_fd().as_raw_fd(), object.maps.get(name)?.clone()))
            })
            .collect();
        let constants = ebpf.map(".rodata").and_then(data).map(|map| -> Result<Constants> {
            let bytes = sys::first_value(map).context("reading the eBPF object's constants")?;
            Ok(Constants { map: map.fd().as_fd().as_raw_fd(), bytes })
        });
        let constants = constants.transpose()?;
        let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
        object
            .relocate_maps(maps.iter().map(|(name, fd, map)| (name.as_str(), *fd, map)), &text)
            .context("relocating the eBPF object's maps")?;
        object.relocate_calls(&text).context("relocating the eBPF object's calls")?;
        // A second time after aya, who keeps its own: to open that takes CAP_SYS_ADMIN.
        let features = aya::features().btf().context("this kernel takes no BTF")?;
        let btf = object.fixup_and_sanitize_btf(features).context("mending the BTF of the eBPF object")?;
        let btf = btf.context("the eBPF object has no BTF")?.to_bytes();
        let btf = sys::load_btf(&btf).context("loading the BTF of the eBPF object")?;
        Ok(Self { object, btf, constants, shared })
    }

    /// Loads the program of a name. With a cookie it serves one event, and its call for the attachment's cookie becomes that number: so it
    /// needs no cookie of the attachment, which these have only in newer kernels.
    ///
    /// # Errors
    /// When there is no such program, or the kernel refuses it.
    pub fn load(&self, name: &str, hook: Hook<'_>, cookie: Option<i32>) -> Result<OwnedFd> {
        self.load_for(name, hook, cookie, 0)
    }

    /// The same for a tracepoint with so many bytes of fields, where the program copies them itself.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_for(&self, name: &str, hook: Hook<'_>, cookie: Option<i32>, fields: i16) -> Result<OwnedFd> {
        let program = self.object.programs.get(name);
        let function = program.and_then(|program| self.object.functions.get(&program.function_key()));
        let function = function.with_context(|| format!("the eBPF object has no program {name}"))?;
        let mut instructions = function.instructions.clone();
        if let Some(cookie) = cookie {
            set_cookie(&mut instructions, cookie);
        }
        set_fields(&mut instructions, fields);
        if let Some(constants) = &self.constants {
            constants.fill(&mut instructions);
        }
        preemption::abilities().fill(
            &mut instructions,
            Places { preemptible: hook.is_preemptible(), guarded: hook.guard() == Guard::Program, shared: self.shared },
        );
        let (kind, attach, target) = match hook {
            Hook::Kprobe | Hook::Uprobe => (bpf_prog_type::BPF_PROG_TYPE_KPROBE, None, None),
            Hook::Kprobes => (bpf_prog_type::BPF_PROG_TYPE_KPROBE, Some(bpf_attach_type::BPF_TRACE_KPROBE_MULTI), None),
            Hook::Tracepoint | Hook::SystemCall => (bpf_prog_type::BPF_PROG_TYPE_TRACEPOINT, None, None),
            Hook::RawTracepoint => (bpf_prog_type::BPF_PROG_TYPE_RAW_TRACEPOINT, None, None),
            Hook::Calls(id) => {
                (bpf_prog_type::BPF_PROG_TYPE_TRACING, Some(bpf_attach_type::BPF_TRACE_RAW_TP), Some((id, None)))
            }
            Hook::Sample => (bpf_prog_type::BPF_PROG_TYPE_PERF_EVENT, None, None),
            Hook::Entry(id, module) => {
                (bpf_prog_type::BPF_PROG_TYPE_TRACING, Some(bpf_attach_type::BPF_TRACE_FENTRY), Some((id, module)))
            }
            Hook::Exit(id, module) => {
                (bpf_prog_type::BPF_PROG_TYPE_TRACING, Some(bpf_attach_type::BPF_TRACE_FEXIT), Some((id, module)))
            }
        };
        let functions = function.func_info.func_info_bytes();
        sys::load_program(&ProgramLoad {
            kind,
            attach,
            name,
            instructions: &instructions,
            btf: self.btf.as_fd(),
            functions: (&functions, function.func_info_rec_size),
            target,
        })
        .with_context(|| format!("loading the program {name} (needs CAP_BPF and CAP_PERFMON, and {KERNEL})"))
    }
}

/// Puts a number in the place of every call of `bpf_get_attach_cookie`. The call and the move are one instruction each.
fn set_cookie(instructions: &mut [bpf_insn], cookie: i32) {
    const GET_ATTACH_COOKIE: i32 = bpf_func_id::BPF_FUNC_get_attach_cookie as i32;
    for instruction in instructions {
        if instruction.code == CALL && instruction.src_reg() == 0 && instruction.imm == GET_ATTACH_COOKIE {
            instruction.code = MOVE;
            instruction.set_dst_reg(0);
            instruction.imm = cookie;
        }
    }
}

/// Puts the copy of so many bytes of a tracepoint's fields in its place (`relay_common::placeholder`): each load is as long as its place in the
/// context is aligned to, as the kernel wants it (kernel/trace/bpf_trace.c, `tp_prog_is_valid_access`), and none goes beyond the last field.
fn set_fields(instructions: &mut [bpf_insn], bytes: i16) {
    for at in 0..instructions.len() {
        let instruction = instructions[at];
        if instruction.code != MOVE {
            continue;
        }
        if instruction.imm == placeholder::FIELDS_SIZE {
            instructions[at].imm = bytes.into();
        } else if instruction.imm == placeholder::FIELDS
            && let Some(place) = instructions.get_mut(at..at + placeholder::FIELDS_LEN)
        {
            for (to, copy) in place.iter_mut().skip(1).zip(copy(bytes)) {
                *to = copy;
            }
        }
    }
}

/// Loads and stores of so many bytes, from the context in register 1 to the record in register 2.
fn copy(bytes: i16) -> Vec<bpf_insn> {
    const FIRST: i16 = {
        assert!(COMMON_FIELDS == 8);
        8
    };
    let mut copy = Vec::new();
    let mut at = 0;
    while at < bytes {
        let width = [8, 4, 2].into_iter().find(|width| bytes - at >= *width).unwrap_or(1);
        copy.push(load_from_context(width, at + FIRST));
        copy.push(store_in_record(width, at));
        at += width;
    }
    copy
}

/// A map of one of the kinds that the tracer has.
fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(map)
        | Map::ArrayOfMaps(map)
        | Map::HashMap(map)
        | Map::LruHashMap(map)
        | Map::PerCpuArray(map)
        | Map::RingBuf(map) => Some(map),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use placeholder::{FIELDS_LEN, MAX_FIELDS};

    #[test]
    fn every_byte_of_the_fields_is_copied_and_none_beyond() {
        for bytes in 1..=i16::try_from(MAX_FIELDS).unwrap() {
            let copy = copy(bytes);
            assert!(copy.len() < FIELDS_LEN, "{bytes}");
            let mut at = 0;
            for pair in copy.chunks(2) {
                let width = match pair[0].code & 0x18 {
                    0x18 => 8,
                    0x00 => 4,
                    0x08 => 2,
                    _ => 1,
                };
                assert_eq!((pair[0].off, pair[1].off, at % width), (at + 8, at, 0), "{bytes}");
                assert_eq!(pair[0].code & 0x18, pair[1].code & 0x18, "{bytes}");
                at += width;
            }
            assert_eq!(at, bytes);
        }
    }
}
