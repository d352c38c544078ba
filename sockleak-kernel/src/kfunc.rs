//! Lets the programs call functions of the running kernel ("kfuncs").
//!
//! They have no number that an object could name: a call of one carries the id of its type in the BTF of the running
//! kernel. So the object has calls of helpers that do not exist, and they are replaced before the load.

use sockleak_ebpf::{
    LOCAL_IRQ_RESTORE, LOCAL_IRQ_SAVE, PREEMPT_DISABLE, PREEMPT_ENABLE, RDONLY_CAST, TASK_STRUCT,
};

/// The functions with which a program switches preemption off and on again, all of them in 6.14 and later: the helper in
/// whose place each is called, and its name.
pub const PREEMPTION: [(usize, &str); 4] = [
    (PREEMPT_DISABLE, "bpf_preempt_disable"),
    (PREEMPT_ENABLE, "bpf_preempt_enable"),
    (LOCAL_IRQ_SAVE, "bpf_local_irq_save"),
    (LOCAL_IRQ_RESTORE, "bpf_local_irq_restore"),
];

/// The function that makes a typed pointer of a number (6.2 and later).
pub const CAST: &str = "bpf_rdonly_cast";

/// What the programs may call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kfuncs {
    /// Type ids of [`PREEMPTION`], in its order, for programs that are preempted.
    pub preemption: Option<[u32; PREEMPTION.len()]>,
    /// For programs that read through pointers without a helper.
    pub casts: Option<Casts>,
}

/// The ids that a cast takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Casts {
    /// Of [`CAST`].
    pub function: u32,
    /// Of `struct task_struct`.
    pub task_struct: u32,
}

/// `BPF_JMP | BPF_CALL`, the code of a call (include/uapi/linux/bpf.h).
const CALL: u8 = 0x85;
/// `BPF_PSEUDO_KFUNC_CALL`, in the upper half of the byte of registers.
const KFUNC: u8 = 2 << 4;
/// `BPF_ALU64 | BPF_MOV | BPF_K`: a register is set to a number.
const SET: u8 = 0xb7;
/// What a call leaves something in.
const R0: u8 = 0;
/// The second argument of a call.
const R2: u8 = 2;

type Instruction = [u8; 8];

/// The object with its calls replaced: by calls of the kernel's functions, or by r0 = 0.
#[must_use]
pub fn resolve(object: &[u8], kfuncs: Kfuncs) -> Vec<u8> {
    let mut resolved = object.to_vec();
    for (index, (number, _)) in PREEMPTION.into_iter().enumerate() {
        let id = kfuncs.preemption.map(|ids| ids[index]);
        replace(&mut resolved, placeholder(number), call(id));
    }
    let cast = kfuncs.casts.map(|casts| casts.function);
    replace(&mut resolved, placeholder(RDONLY_CAST), call(cast));
    if let Some(casts) = kfuncs.casts {
        replace(&mut resolved, second(TASK_STRUCT), second(casts.task_struct));
    }
    resolved
}

fn placeholder(number: usize) -> Instruction {
    instruction(CALL, 0, number as u32)
}

fn call(id: Option<u32>) -> Instruction {
    id.map_or(instruction(SET, R0, 0), |id| instruction(CALL, KFUNC, id))
}

fn second(argument: u32) -> Instruction {
    instruction(SET, R2, argument)
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
    use crate::object::OBJECT;

    fn count(object: &[u8], wanted: Instruction) -> usize {
        object.chunks_exact(8).filter(|place| *place == wanted).count()
    }

    #[test]
    fn every_program_switches_preemption_off_and_on_again() {
        let loaded = programs::ALL.len() + programs::COPIES.len();
        for (number, name) in PREEMPTION {
            assert_eq!(count(OBJECT, placeholder(number)), loaded, "{name}");
        }
    }

    #[test]
    fn every_cast_is_to_the_type_that_is_meant() {
        let casts = count(OBJECT, placeholder(RDONLY_CAST));
        assert_ne!(casts, 0);
        assert_eq!(count(OBJECT, second(TASK_STRUCT)), casts);
        let kfuncs = Kfuncs {
            casts: Some(Casts {
                function: 77,
                task_struct: 114,
            }),
            ..Kfuncs::default()
        };
        let resolved = resolve(OBJECT, kfuncs);
        let added = |wanted| count(&resolved, wanted) - count(OBJECT, wanted);
        assert_eq!(added(second(114)), casts);
        assert_eq!(added(instruction(CALL, KFUNC, 77)), casts);
    }

    #[test]
    fn calls_become_what_the_kernel_has() {
        let object = [placeholder(PREEMPT_ENABLE), instruction(CALL, 0, 5)].concat();
        let kfuncs = Kfuncs {
            preemption: Some([76, 77, 78, 79]),
            ..Kfuncs::default()
        };
        let resolved = resolve(&object, kfuncs);
        assert_eq!(resolved[..8], [0x85, 0x20, 0, 0, 77, 0, 0, 0]);
        assert_eq!(resolved[8..], object[8..]);
        let resolved = resolve(&object, Kfuncs::default());
        assert_eq!(resolved[..8], [0xb7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(resolved[8..], object[8..]);
    }
}
