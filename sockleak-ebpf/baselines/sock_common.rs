//! `struct sock_common`, read as it is usually done: member by member.

use core::marker::PhantomData;

use crate::memory::{read_bits, read_into, read_or_zero};

pub struct Place;

impl Place {
    #[inline(always)]
    pub const fn uninit() -> Self {
        Self
    }
}

/// One `struct sock_common`.
pub struct SockCommon<'a> {
    sk: u64,
    place: PhantomData<&'a mut Place>,
}

impl<'a> SockCommon<'a> {
    #[inline(always)]
    pub fn read(_: &'a mut Place, sk: u64) -> Self {
        let place = PhantomData;
        Self { sk, place }
    }

    #[inline(always)]
    pub fn get<T: Copy + Default>(&self, offset: u32) -> T {
        read_or_zero(self.sk, offset)
    }

    #[inline(always)]
    pub fn bits(&self, bit_offset: u32, width: u32) -> u8 {
        read_bits(self.sk, bit_offset, width)
    }

    #[inline(always)]
    pub fn address(&self, offset: u32) -> [u8; 16] {
        let mut address = [0; 16];
        read_into(&mut address, self.sk, offset);
        address
    }
}
