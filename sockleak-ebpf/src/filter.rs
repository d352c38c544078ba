//! Who is not followed, told without a lookup.
//!
//! Nearly every change of state is of a socket that nobody follows, and the lookups that say so are most of what it
//! costs: a hash, and a place in buckets that hardly any cache holds. Here they are single bytes, which are 1 once
//! what has them was followed. They stay so: the slab gives the same memory to sockets again and again, and a byte
//! that is 1 for nothing costs the lookup and no more.

use core::cell::UnsafeCell;
use core::ffi::c_void;

use aya_ebpf::{macros::map, maps::Array};
use sockleak_ebpf::maps::WATCHED_BYTES_SIZE;

/// One byte for each group of process ids, by their lower bits. User space writes it too.
#[map]
pub static WATCHED_BYTES: Array<u8> = Array::with_max_entries(WATCHED_BYTES_SIZE, 0);

/// 2 to the power of this many bytes.
const BITS: u32 = 16;

/// One byte for each group of addresses of sockets.
struct Filter(UnsafeCell<[u8; 1 << BITS]>);

// SAFETY: All that is ever written are single bytes, and only the value 1.
unsafe impl Sync for Filter {}

static FILTER: Filter = Filter(UnsafeCell::new([0; 1 << BITS]));

/// The byte of a socket that is so far from the filter in memory: each 2 KiB have one, and after 128 MiB the first comes
/// again. A `struct tcp_sock` is larger than 2 KiB, so those that lie side by side in a slab have bytes of their own in
/// the same line of a cache.
#[inline(always)]
fn byte(distance: u64) -> *mut u8 {
    let bytes: *mut u8 = FILTER.0.get().cast();
    bytes.wrapping_add((distance >> 11) as usize % (1 << BITS))
}

/// How far an address is from the filter, as far as it takes to find the byte.
#[inline(always)]
fn distance(sk: u64) -> u64 {
    low_half(sk).wrapping_sub(low_half(FILTER.0.get() as u64)).into()
}

/// The lower 32 bits of an address. A verifier that knows what is at the address lets no program calculate with it. On
/// the stack, where one byte of it is overwritten, the others are plain numbers (`check_stack_write_fixed_off`,
/// kernel/bpf/verifier.c).
#[inline(always)]
fn low_half(sk: u64) -> u32 {
    let mut place = sk;
    let place = &raw mut place;
    // SAFETY: All three are within `place`. They are volatile, because otherwise nothing of it would be in memory.
    unsafe {
        place.write_volatile(sk);
        place.cast::<u8>().add(7).write_volatile(0xff);
        place.cast::<u32>().read_volatile()
    }
}

/// Whether a socket at this address may be followed. False is certain.
#[inline(always)]
pub fn may_be_followed(sk: u64) -> bool {
    // SAFETY: The byte is one of the filter's. The kernel's programs share it, so that it is read as it is in memory.
    unsafe { byte(distance(sk)).read_volatile() != 0 }
}

/// The same for an address that a verifier knows what is at, as a number: 0 is certain. All that such addresses can be
/// calculated with is one another (`adjust_reg_min_max_vals`, kernel/bpf/verifier.c).
#[inline(always)]
pub fn byte_of_typed(sk: *const c_void) -> u8 {
    let distance = (sk as u64).wrapping_sub(FILTER.0.get() as u64);
    // SAFETY: As in `may_be_followed`.
    unsafe { byte(distance).read_volatile() }
}

/// A socket at this address is followed from now on; called before its record is there.
#[inline(always)]
pub fn will_be_followed(sk: u64) {
    // SAFETY: The byte is one of the filter's. Whoever writes it at the same time writes the same.
    unsafe { byte(distance(sk)).write_volatile(1) }
}

/// Whether this process may be watched. False is certain.
#[inline(always)]
pub fn may_be_watched(tgid: u32) -> bool {
    WATCHED_BYTES
        .get(tgid % WATCHED_BYTES_SIZE)
        .is_some_and(|byte| *byte != 0)
}

/// This process is watched from now on; called before the map says so.
#[inline(always)]
pub fn will_be_watched(tgid: u32) {
    if let Some(byte) = WATCHED_BYTES.get_ptr_mut(tgid % WATCHED_BYTES_SIZE) {
        // SAFETY: The byte is one of the map's, which lives as long as the program.
        unsafe { *byte = 1 };
    }
}
