//! Lets the programs switch preemption off, on kernels that preempt programs.
//!
//! A kernel's own functions ("kfuncs") have no number that an object could name: a call of one carries the id of
//! its type in the BTF of the running kernel. So the object has calls of helpers that do not exist, and they
//! are replaced before the load.

use sockleak_ebpf::{LOCAL_IRQ_RESTORE, LOCAL_IRQ_SAVE, PREEMPT_DISABLE, PREEMPT_ENABLE};

/// The functions that the programs call, all of them in 6.14 and later: the helper in whose place each is called, and
/// its name.
pub const FUNCTIONS: [(usize, &str); 4] = [
    (PREEMPT_DISABLE, "bpf_preempt_disable"),
    (PREEMPT_ENABLE, "bpf_preempt_enable"),
    (LOCAL_IRQ_SAVE, "bpf_local_irq_save"),
    (LOCAL_IRQ_RESTORE, "bpf_local_irq_restore"),
];

/// Type ids of [`FUNCTIONS`], in their order.
pub type FunctionIds = [u32; FUNCTIONS.len()];

/// `BPF_JMP | BPF_CALL`, the code of a call (include/uapi/linux/bpf.h).
const CALL: u8 = 0x85;
/// `BPF_PSEUDO_KFUNC_CALL`, in the upper half of the byte of registers.
const KFUNC: u8 = 2 << 4;
/// `BPF_ALU64 | BPF_MOV | BPF_K`: r0 = 0. A call leaves something in r0 too, and r1 to r5 undefined.
const SET_R0: u8 = 0xb7;

type Instruction = [u8; 8];

/// The object with its calls replaced: by calls of the kernel's functions, or by nothing.
pub fn resolve(object: &[u8], functions: Option<FunctionIds>) -> Vec<u8> {
    let mut resolved = object.to_vec();
    for (index, (number, _)) in FUNCTIONS.into_iter().enumerate() {
        let replacement = match functions {
            Some(ids) => instruction(CALL, KFUNC, ids[index]),
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
        for (number, name) in FUNCTIONS {
            assert_eq!(count(OBJECT, placeholder(number)), loaded, "{name}");
        }
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
