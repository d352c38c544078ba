//! The committed object, and what is in it.

use aya::Ebpf;
use aya::programs::{Program, ProgramError};

/// The committed object.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("SOCKLEAK_BPF_OBJECT"));

/// The program of that name and kind.
pub fn find<'a, T>(ebpf: &'a mut Ebpf, name: &str) -> Result<T, ProgramError>
where
    T: TryFrom<&'a mut Program, Error = ProgramError>,
{
    ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()
}
