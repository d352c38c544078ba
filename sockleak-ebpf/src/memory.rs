//! Reading kernel memory.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel as bpf_probe_read_kernel_raw;
use sockleak_ebpf::MISSING;

/// Reads the member at byte `offset` of the object at `base`; `None` for a null base, a member that
/// this kernel lacks, or an address that faults.
#[inline(always)]
pub fn read<T: Copy>(base: u64, offset: u32) -> Option<T> {
    if base == 0 || offset == MISSING {
        return None;
    }
    // SAFETY: the helper copies from any kernel address and reports a fault as an error.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T) }.ok()
}

/// Reads a member to where it belongs, without a copy on the stack; leaves zeros if it cannot be read.
#[inline(always)]
pub fn read_into<T: ?Sized>(place: &mut T, base: u64, offset: u32) {
    let size = size_of_val(place) as u32;
    let place = core::ptr::from_mut(place).cast();
    let address = if base == 0 || offset == MISSING {
        0
    } else {
        base + u64::from(offset)
    };
    // SAFETY: The helper writes exactly the given size to `place`, zeros if the address faults, as null does.
    unsafe { bpf_probe_read_kernel_raw(place, size, address as *const _) };
}

/// Reads a member; zero for a null base, a member that this kernel lacks, or an address that faults. Only the second is
/// a branch, and one that a verifier decides: of any other it looks at both ways, and at all that follows once for each.
#[inline(always)]
pub fn read_or_zero<T: Copy + Default>(base: u64, offset: u32) -> T {
    let mut value = T::default();
    if offset == MISSING {
        return value;
    }
    let place = core::ptr::from_mut(&mut value).cast();
    // The first page is never kernel memory, so a null base is an address that faults.
    let address = (base + u64::from(offset)) as *const _;
    // SAFETY: The helper writes exactly the given size to `place`, zeros if the address faults.
    unsafe { bpf_probe_read_kernel_raw(place, size_of::<T>() as u32, address) };
    value
}

/// Reads a bit field of at most 8 bits that does not cross a byte, at `bit_offset` of the object at `base`.
#[inline(always)]
pub fn read_bits(base: u64, bit_offset: u32, width: u32) -> u8 {
    if bit_offset == MISSING {
        return 0;
    }
    bits_of(read_or_zero(base, bit_offset / 8), bit_offset, width)
}

/// A bit field of at most 8 bits out of its byte.
#[inline(always)]
pub fn bits_of(byte: u8, bit_offset: u32, width: u32) -> u8 {
    (byte >> (bit_offset % 8)) & ((1u16 << width) - 1) as u8
}
