//! `struct sock_common`, which every kind of socket begins with, read at once instead of member by member.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use sockleak_ebpf::MISSING;

use crate::memory::bits_of;

/// Bytes up to and with `skc_flags`, where a kernel has IPv6 and network namespaces, from 5.10 to 7.3
/// (include/net/sock.h); they are fewer without. No more, because the frames of a walk, each rounded up to 32 bytes as in
/// 6.1, together fill the 512 bytes of a program's stack. The verifier refuses a member that would not be among them.
const SIZE: usize = 104;

/// A place on the stack for the copy.
pub type Place = MaybeUninit<[u64; SIZE / 8]>;

/// The members of one `struct sock_common`.
pub struct SockCommon<'a>(&'a [u64; SIZE / 8]);

impl<'a> SockCommon<'a> {
    /// Reads it; zeros if the address faults.
    #[inline(always)]
    pub fn read(place: &'a mut Place, sk: u64) -> Self {
        // SAFETY: The helper writes all bytes of `place`, zeros if the address faults.
        Self(unsafe {
            bpf_probe_read_kernel(place.as_mut_ptr().cast(), SIZE as u32, sk as *const _);
            place.assume_init_ref()
        })
    }

    /// A member; zero if this kernel lacks it.
    #[inline(always)]
    pub fn get<T: Copy + Default>(&self, offset: u32) -> T {
        if offset == MISSING {
            return T::default();
        }
        let copy: *const T = core::ptr::from_ref(self.0).cast();
        // SAFETY: The member is within the copy, or the verifier refuses the program, and aligned as in the kernel.
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
        if offset != MISSING {
            for (index, part) in address.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&self.get::<u32>(offset + index as u32 * 4).to_ne_bytes());
            }
        }
        address
    }
}
