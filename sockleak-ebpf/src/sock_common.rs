//! `struct sock_common`, which every kind of socket begins with, read at once: a call of the helper for each member was a
//! third of the walk over an fd table.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use sockleak_ebpf::MISSING;

use crate::memory::{bits_of, read_or_zero};

/// Bytes up to and with `skc_flags`, where a kernel has IPv6 and network namespaces (include/net/sock.h).
const SIZE: usize = 104;

/// A place on the stack for the copy.
pub type Place = MaybeUninit<[u64; SIZE / 8]>;

/// The members of one `struct sock_common`.
pub struct SockCommon<'a> {
    copy: &'a [u64; SIZE / 8],
    sk: u64,
}

impl<'a> SockCommon<'a> {
    /// Reads it; zeros if the address faults.
    #[inline(always)]
    pub fn read(place: &'a mut Place, sk: u64) -> Self {
        // SAFETY: The helper writes all bytes of `place`, zeros if the address faults.
        let copy = unsafe {
            bpf_probe_read_kernel(place.as_mut_ptr().cast(), SIZE as u32, sk as *const _);
            place.assume_init_ref()
        };
        Self { copy, sk }
    }

    /// A member; zero if this kernel lacks it. What lies beyond the copy is read by itself: the verifier decides that.
    #[inline(always)]
    pub fn get<T: Copy + Default>(&self, offset: u32) -> T {
        if offset as usize > SIZE - size_of::<T>() {
            return read_or_zero(self.sk, offset);
        }
        let copy: *const T = core::ptr::from_ref(self.copy).cast();
        // SAFETY: All of it is within the copy, and aligned as in the kernel. It is volatile so that the compiler reads
        // it here and in one piece, and does not put the two ways together.
        unsafe { copy.byte_add(offset as usize).read_volatile() }
    }

    /// A bit field of at most 8 bits that does not cross a byte.
    #[inline(always)]
    pub fn bits(&self, bit_offset: u32, width: u32) -> u8 {
        if bit_offset == MISSING {
            return 0;
        }
        bits_of(self.get(bit_offset / 8), bit_offset, width)
    }

    /// An address of 16 bytes.
    #[inline(always)]
    pub fn address(&self, offset: u32) -> [u8; 16] {
        let mut address = [0; 16];
        for (index, part) in address.chunks_exact_mut(4).enumerate() {
            part.copy_from_slice(
                &self
                    .get::<u32>(offset.saturating_add(index as u32 * 4))
                    .to_ne_bytes(),
            );
        }
        address
    }
}
