//! The least that a program can do that follows some sockets and not others: what the programs are measured against.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use aya_obj::generated::{bpf_cmd, bpf_map_type, bpf_prog_type};
use sockleak_ebpf::programs;

/// As many buckets as the maps of a trace of a small process have.
const ENTRIES: u32 = 8192;

type Instruction = [u8; 8];

/// A program that is attached until this is dropped.
#[expect(
    dead_code,
    reason = "they are held open, and found by who asks what the program did"
)]
pub struct Bare {
    link: OwnedFd,
    program: OwnedFd,
}

/// Attaches a program that looks for each socket that changes its state in a map that is empty.
///
/// # Errors
/// When the kernel refuses it.
pub fn attach() -> io::Result<Bare> {
    let map = bpf(
        bpf_cmd::BPF_MAP_CREATE,
        &CreateMap {
            map_type: bpf_map_type::BPF_MAP_TYPE_HASH as u32,
            key_size: size_of::<u64>() as u32,
            value_size: size_of::<u64>() as u32,
            max_entries: ENTRIES,
        },
    )?;
    let instructions = lookup(map.as_raw_fd());
    let program = bpf(
        bpf_cmd::BPF_PROG_LOAD,
        &LoadProgram {
            prog_type: bpf_prog_type::BPF_PROG_TYPE_RAW_TRACEPOINT as u32,
            insn_cnt: instructions.len() as u32,
            insns: instructions.as_ptr() as u64,
            license: c"Dual MIT/GPL".as_ptr() as u64,
        },
    )?;
    let tracepoint = format!("{}\0", programs::INET_SOCK_SET_STATE);
    let link = bpf(
        bpf_cmd::BPF_RAW_TRACEPOINT_OPEN,
        &OpenTracepoint {
            name: tracepoint.as_ptr() as u64,
            prog_fd: program.as_raw_fd() as u32,
            padding: 0,
        },
    )?;
    Ok(Bare { link, program })
}

/// One lookup by the first argument, which is the address of the socket (include/uapi/linux/bpf.h).
fn lookup(map: i32) -> [Instruction; 9] {
    /// `BPF_LDX | BPF_MEM | BPF_DW`.
    const LOAD: u8 = 0x79;
    /// `BPF_STX | BPF_MEM | BPF_DW`.
    const STORE: u8 = 0x7b;
    /// `BPF_ALU64 | BPF_MOV | BPF_X`.
    const COPY: u8 = 0xbf;
    /// `BPF_ALU64 | BPF_ADD | BPF_K`.
    const ADD: u8 = 0x07;
    /// `BPF_LD | BPF_IMM | BPF_DW`, which takes two instructions.
    const LOAD_WIDE: u8 = 0x18;
    /// `BPF_PSEUDO_MAP_FD`, as the source register of `LOAD_WIDE`.
    const MAP_FD: u8 = 1;
    /// `BPF_JMP | BPF_CALL`.
    const CALL: u8 = 0x85;
    /// `BPF_FUNC_map_lookup_elem`.
    const MAP_LOOKUP: i32 = 1;
    /// `BPF_ALU64 | BPF_MOV | BPF_K`.
    const SET: u8 = 0xb7;
    /// `BPF_JMP | BPF_EXIT`.
    const EXIT: u8 = 0x95;
    /// The register that points to the end of the stack.
    const STACK: u8 = 10;
    const KEY: i16 = -8;
    [
        instruction(LOAD, (1, 1), 0, 0),
        instruction(STORE, (STACK, 1), KEY, 0),
        instruction(COPY, (2, STACK), 0, 0),
        instruction(ADD, (2, 0), 0, i32::from(KEY)),
        instruction(LOAD_WIDE, (1, MAP_FD), 0, map),
        instruction(0, (0, 0), 0, 0),
        instruction(CALL, (0, 0), 0, MAP_LOOKUP),
        instruction(SET, (0, 0), 0, 0),
        instruction(EXIT, (0, 0), 0, 0),
    ]
}

/// A code, the registers for the result and the source, an offset and a number (`struct bpf_insn`).
fn instruction(code: u8, (result, source): (u8, u8), offset: i16, number: i32) -> Instruction {
    let registers = if cfg!(target_endian = "little") {
        (source << 4) | result
    } else {
        (result << 4) | source
    };
    let [a, b] = offset.to_ne_bytes();
    let [c, d, e, f] = number.to_ne_bytes();
    [code, registers, a, b, c, d, e, f]
}

/// The beginnings of `union bpf_attr` that the commands read. What a shorter one lacks is zero to the kernel
/// (`bpf_check_uarg_tail_zero`, kernel/bpf/syscall.c).
trait Attributes {}

#[repr(C)]
struct CreateMap {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

#[repr(C)]
struct LoadProgram {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
}

#[repr(C)]
struct OpenTracepoint {
    name: u64,
    prog_fd: u32,
    padding: u32,
}

impl Attributes for CreateMap {}
impl Attributes for LoadProgram {}
impl Attributes for OpenTracepoint {}

/// A command that makes a descriptor.
fn bpf<T: Attributes>(command: bpf_cmd, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: The pointer and the size are those of attributes that live through the call and have no padding. What they
    // point to lives as long: arrays of the caller, of the length that they say, and strings that end with NUL.
    let made = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    if made < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: The descriptor was just made, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(made as i32) })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::accounting;

    #[test]
    #[ignore = "needs root"]
    fn it_runs_for_each_change_of_state() {
        let _accounting = accounting::enable().unwrap();
        let bare = attach().unwrap();
        let fdinfo = format!("/proc/self/fdinfo/{}", bare.program.as_raw_fd());
        let runs = || {
            let text = std::fs::read_to_string(&fdinfo).unwrap();
            let runs = text.lines().find_map(|line| line.strip_prefix("run_cnt:"));
            runs.unwrap().trim().parse::<u64>().unwrap()
        };
        let before = runs();
        drop(TcpListener::bind("127.0.0.1:0").unwrap());
        // LISTEN, and CLOSE again; other tests may make changes meanwhile.
        assert!(runs() >= before + 2);
    }
}
