//! Lets the programs switch preemption off, on kernels where a program can.
//!
//! A kernel's own functions ("kfuncs") have no number that an object could name: a call of one carries the id of
//! its type in the BTF of the running kernel. So the object has calls of two helpers that do not exist, and
//! they are replaced before the load.

use sockleak_ebpf::{PREEMPT_DISABLE, PREEMPT_ENABLE};

/// `BPF_JMP | BPF_CALL`, the code of a call (include/uapi/linux/bpf.h).
const CALL: u8 = 0x85;
/// `BPF_PSEUDO_KFUNC_CALL`, in the upper half of the byte of registers.
const KFUNC: u8 = 2 << 4;
/// `BPF_ALU64 | BPF_MOV | BPF_K`: r0 = 0. A call leaves something in r0 too, and r1 to r5 undefined.
const SET_R0: u8 = 0xb7;

type Instruction = [u8; 8];

/// The object with its calls replaced as this kernel needs it: by calls of the functions with these type ids,
/// `bpf_preempt_disable` and `bpf_preempt_enable` (6.10 and later), or by nothing.
pub fn resolve(object: &[u8], functions: Option<(u32, u32)>) -> Vec<u8> {
    let mut resolved = object.to_vec();
    for (number, id) in [
        (PREEMPT_DISABLE, functions.map(|(disable, _)| disable)),
        (PREEMPT_ENABLE, functions.map(|(_, enable)| enable)),
    ] {
        let replacement = match id {
            Some(id) => instruction(CALL, KFUNC, id),
            None => instruction(SET_R0, 0, 0),
        };
        replace(&mut resolved, placeholder(number), replacement);
    }
    resolved
}

fn placeholder(number: usize) -> Instruction {
    instruction(CALL, 0, number as u32)
}

fn instruction(code: u8, registers: u8, immediate: u32) -> Instruction {
    let [a, b, c, d] = immediate.to_ne_bytes();
    [code, registers, 0, 0, a, b, c, d]
}

/// Code is aligned to its instructions, in the file as in its section.
fn replace(object: &mut [u8], from: Instruction, to: Instruction) {
    for place in object.chunks_exact_mut(size_of::<Instruction>()) {
        if *place == from {
            place.copy_from_slice(&to);
        }
    }
}

#[cfg(test)]
mod tests {
    use sockleak_ebpf::programs;

    use super::*;
    use crate::kernel::load::OBJECT;

    fn count(object: &[u8], wanted: Instruction) -> usize {
        object.chunks_exact(8).filter(|place| *place == wanted).count()
    }

    #[test]
    fn every_program_switches_preemption_off_and_on_again() {
        let loaded = programs::ALL.len() + programs::COPIES.len();
        assert_eq!(count(OBJECT, placeholder(PREEMPT_DISABLE)), loaded);
        assert_eq!(count(OBJECT, placeholder(PREEMPT_ENABLE)), loaded);
    }

    #[test]
    fn calls_become_what_the_kernel_has() {
        let mut object = [placeholder(PREEMPT_ENABLE), instruction(CALL, 0, 5)].concat();
        replace(
            &mut object,
            placeholder(PREEMPT_ENABLE),
            instruction(CALL, KFUNC, 77),
        );
        assert_eq!(object[..8], [0x85, 0x20, 0, 0, 77, 0, 0, 0]);
        assert_eq!(object[8..], instruction(CALL, 0, 5));
    }
}
