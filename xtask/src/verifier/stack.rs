//! How much stack the programs of an object take: what the verifier adds up over a chain of calls
//! (`check_max_stack_depth`, kernel/bpf/verifier.c).

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use object::read::elf::ElfFile64;
use object::{
    Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionIndex, SymbolKind,
};

use crate::verifier_table::Column;

/// A function, by its section and where it begins there.
type Place = (usize, u64);

struct Function {
    name: String,
    /// Bytes below the frame pointer.
    depth: u32,
    calls: BTreeSet<Place>,
}

/// Bytes of each program with everything that it calls.
///
/// # Errors
/// When the object is none, or has a call that leads nowhere.
pub fn depths(bytes: &[u8]) -> Result<Column> {
    let file = ElfFile64::<object::Endianness>::parse(bytes).context("the object cannot be read")?;
    let functions = functions(&file)?;
    let library = file.section_by_name(".text").map(|section| section.index().0);
    let programs = functions
        .iter()
        .filter(|((section, _), _)| Some(*section) != library);
    let depths = programs.map(|(place, function)| {
        let depth = with_calls(&functions, *place).with_context(|| function.name.clone())?;
        Ok((function.name.clone(), Some(depth)))
    });
    depths.collect()
}

fn functions(file: &ElfFile64<'_>) -> Result<BTreeMap<Place, Function>> {
    let mut functions = BTreeMap::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
        let index = symbol.section_index().context("a function without a section")?;
        let section = file.section_by_index(index)?;
        let calls = relocated_calls(file, index)?;
        let (number, start) = (index.0, symbol.address());
        let code = section
            .data()?
            .get(start as usize..(start + symbol.size()) as usize);
        let function = Function::read(
            (number, start),
            code.context("a function beyond its section")?,
            &calls,
        );
        functions.insert(
            (number, start),
            Function {
                name: symbol.name()?.to_owned(),
                ..function
            },
        );
    }
    Ok(functions)
}

/// Where the calls of a section lead that the linker left to the loader, by where they stand.
fn relocated_calls(file: &ElfFile64<'_>, section: SectionIndex) -> Result<BTreeMap<u64, Place>> {
    let section = file.section_by_index(section)?;
    let mut calls = BTreeMap::new();
    for (offset, relocation) in section.relocations() {
        let RelocationTarget::Symbol(symbol) = relocation.target() else {
            continue;
        };
        let symbol = file.symbol_by_index(symbol)?;
        let Some(target) = symbol.section_index() else {
            continue;
        };
        // By the section, the instruction itself says how far behind its beginning, from the next instruction on.
        let beyond = if symbol.kind() == SymbolKind::Section {
            let code = section.data()?.get(offset as usize..).unwrap_or_default();
            let immediate = instructions(code)
                .next()
                .context("a relocation beyond its section")?
                .immediate;
            u64::try_from(i64::from(immediate) + 1).unwrap_or(0) * SIZE as u64
        } else {
            0
        };
        calls.insert(offset, (target.0, symbol.address() + beyond));
    }
    Ok(calls)
}

/// Bytes of `struct bpf_insn`.
const SIZE: usize = 8;

struct Instruction {
    code: u8,
    result: u8,
    source: u8,
    offset: i16,
    immediate: i32,
}

fn instructions(code: &[u8]) -> impl Iterator<Item = Instruction> {
    code.chunks_exact(SIZE).map(|bytes| Instruction {
        code: bytes[0],
        result: bytes[1] & 15,
        source: bytes[1] >> 4,
        offset: i16::from_le_bytes([bytes[2], bytes[3]]),
        immediate: i32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    })
}

impl Function {
    /// The depth is that of the lowest address that is written or pointed to. No object computes one in another way than
    /// LLVM does: the frame pointer itself with an offset, or a copy of it and a number that is added.
    fn read((section, start): Place, code: &[u8], relocated: &BTreeMap<u64, Place>) -> Self {
        /// The register that points to the end of the frame.
        const FRAME: u8 = 10;
        /// The lower three bits of a code are its class: `BPF_LDX`, `BPF_ST`, `BPF_STX`.
        const LOAD: u8 = 1;
        const STORES: [u8; 2] = [2, 3];
        /// `BPF_ALU64 | BPF_MOV | BPF_X`.
        const COPY: u8 = 0xbf;
        /// `BPF_ALU64 | BPF_ADD | BPF_K`.
        const ADD: u8 = 0x07;
        /// `BPF_JMP | BPF_CALL`, and the source that means a function of the object (`BPF_PSEUDO_CALL`).
        const CALL: u8 = 0x85;
        const OF_THE_OBJECT: u8 = 1;
        let mut lowest = 0;
        let mut copies = BTreeSet::new();
        let mut calls = BTreeSet::new();
        for (index, instruction) in instructions(code).enumerate() {
            let Instruction {
                code,
                result,
                source,
                offset,
                immediate,
            } = instruction;
            let class = code & 7;
            let through_frame =
                (class == LOAD && source == FRAME) || (STORES.contains(&class) && result == FRAME);
            if through_frame {
                lowest = lowest.min(i32::from(offset));
            } else if code == COPY && source == FRAME {
                copies.insert(result);
            } else if code == ADD && copies.remove(&result) {
                lowest = lowest.min(immediate);
            } else if code == CALL && source == OF_THE_OBJECT {
                let place = start + (index * SIZE) as u64;
                let next = i64::from(immediate) + 1;
                let target = place.wrapping_add_signed(next * SIZE as i64);
                calls.insert(relocated.get(&place).copied().unwrap_or((section, target)));
            }
        }
        Self {
            name: String::new(),
            depth: lowest.unsigned_abs(),
            calls,
        }
    }
}

/// Bytes of a function and the deepest chain of calls in it. No program calls itself, since no verifier allows that.
fn with_calls(functions: &BTreeMap<Place, Function>, place: Place) -> Result<u32> {
    /// The kernel rounds up each frame to this.
    const UNIT: u32 = 32;
    let Some(function) = functions.get(&place) else {
        bail!("a call leads to no function");
    };
    let calls = function.calls.iter().map(|call| with_calls(functions, *call));
    let deepest = calls.collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or(0);
    Ok(function.depth.max(1).next_multiple_of(UNIT) + deepest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(code: u8, registers: u8, offset: i16, immediate: i32) -> [u8; SIZE] {
        let [a, b] = offset.to_le_bytes();
        let [c, d, e, f] = immediate.to_le_bytes();
        [code, registers, a, b, c, d, e, f]
    }

    #[test]
    fn the_lowest_address_and_every_call_count() {
        let section = 3;
        let code = [
            // *(u64 *)(r10 - 24) = r1
            instruction(0x7b, 0x1a, -24, 0),
            // r2 = r10; r2 += -40
            instruction(0xbf, 0xa2, 0, 0),
            instruction(0x07, 0x02, 0, -40),
            // r3 += -400, which is no address of the frame
            instruction(0x07, 0x03, 0, -400),
            // call +1, and one that a relocation leads elsewhere
            instruction(0x85, 0x10, 0, 1),
            instruction(0x85, 0x10, 0, -1),
            // call of a helper
            instruction(0x85, 0x00, 0, 1),
        ]
        .concat();
        let relocated = [(5 * 8 + 80, (2, 16))].into();
        let function = Function::read((section, 80), &code, &relocated);
        assert_eq!(function.depth, 40);
        assert_eq!(function.calls, [(2, 16), (section, 80 + 6 * 8)].into());
    }

    #[test]
    fn a_chain_of_calls_adds_up_in_whole_units() {
        let place = |address| (1, address);
        let function = |depth, calls: &[u64]| Function {
            name: String::new(),
            depth,
            calls: calls.iter().map(|address| place(*address)).collect(),
        };
        let functions = [
            (place(0), function(33, &[8, 16])),
            (place(8), function(0, &[])),
            (place(16), function(8, &[8])),
        ]
        .into();
        assert_eq!(with_calls(&functions, place(0)).unwrap(), 64 + 32 + 32);
        assert!(with_calls(&functions, place(24)).is_err());
    }
}
