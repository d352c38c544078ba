//! Read-only globals that user space sets before the load: where this kernel keeps its struct
//! members, and what it can do. The verifier sees constants and drops the branches they rule out.

use aya_ebpf::Global;
use sockleak_ebpf::{MISSING, kernel_fields};

macro_rules! define_globals {
    ($($global:ident: $structure:ident $(. $member:ident)+, $kind:ident $($width:literal)?, $need:ident;)*) => {
        $(
            #[unsafe(no_mangle)]
            pub static $global: Global<u32> = Global::new(MISSING);
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
pub static FOLLOW_CHILDREN: Global<u8> = Global::new(1);
#[unsafe(no_mangle)]
pub static K_SIGACTION_SIZE: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub static MAX_SOCKETS: Global<u32> = Global::new(0);
