//! Read-only globals that user space sets before the load: where this kernel keeps its struct
//! members, and what it can do. The verifier sees constants and drops the branches they rule out.

use aya_ebpf::Global;
use sockleak_ebpf::{MISSING, kernel_fields};

/// Where a member is without which user space loads nothing. So the programs have no way for a kernel that lacks it, which
/// the kernel would have to take out of them, instruction by instruction, at each load.
#[repr(transparent)]
pub struct Required(Global<u32>);

impl Required {
    const fn new(value: u32) -> Self {
        Self(Global::new(value))
    }

    #[inline(always)]
    pub fn load(&self) -> u32 {
        let offset = self.0.load();
        // SAFETY: User space sets it before the load, or ends with an error that names the member.
        unsafe { core::hint::assert_unchecked(offset != MISSING) };
        offset
    }
}

macro_rules! member {
    (required) => { Required };
    (optional) => { Global<u32> };
}

macro_rules! define_globals {
    ($($global:ident: $structure:ident $(. $member:ident)+, $kind:ident $($width:literal)?, $need:ident;)*) => {
        $(
            #[unsafe(no_mangle)]
            pub static $global: member!($need) = <member!($need)>::new(MISSING);
        )*
    };
}
kernel_fields!(define_globals);

#[unsafe(no_mangle)]
pub static HAS_GROUP_DEAD: Global<u8> = Global::new(0);
#[unsafe(no_mangle)]
pub static HAS_COPIES: Global<u8> = Global::new(0);
#[unsafe(no_mangle)]
pub static HAS_RESET_REASON: Global<u8> = Global::new(0);
#[unsafe(no_mangle)]
pub static HAS_SOCKET_COOKIE: Global<u8> = Global::new(0);
#[unsafe(no_mangle)]
pub static HAS_SOCK_I_UID: Global<u8> = Global::new(0);
#[unsafe(no_mangle)]
pub static HAS_SOCK_FROM_FILE: Global<u8> = Global::new(0);
#[unsafe(no_mangle)]
pub static HAS_CASTS: Global<u8> = Global::new(0);
#[unsafe(no_mangle)]
pub static FOLLOW_CHILDREN: Global<u8> = Global::new(1);
#[unsafe(no_mangle)]
pub static K_SIGACTION_SIZE: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub static MAX_SOCKETS: Global<u32> = Global::new(0);
