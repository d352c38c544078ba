//! What the programs are told of the running kernel and of their task before the load: the object's read-only
//! globals.

use aya::EbpfLoader;
use sockleak_ebpf::globals;

use super::fields::{MissingFields, Resolved};
use super::kernel_types::KernelTypes;
use super::loader;

/// Values of every global.
pub struct Globals<'a> {
    fields: &'a [Resolved],
    group_dead: u8,
    reset_reason: u8,
    sock_i_uid: u8,
    sock_from_file: u8,
    has_copies: u8,
    sigaction_size: u32,
    /// The programs may cast addresses.
    pub casts: u8,
    /// Tracing programs may call `bpf_get_socket_cookie`.
    pub socket_cookie: u8,
    /// Children of watched processes are watched too.
    pub follow_children: u8,
    /// The walk at exit ends after this many sockets.
    pub max_sockets: u32,
    /// Least level of the programs' log.
    pub log_level: u8,
}

impl<'a> Globals<'a> {
    /// What the kernel tells. The rest is off.
    ///
    /// # Errors
    /// Names every required struct member that the kernel lacks.
    pub fn of(kernel: &'a KernelTypes) -> Result<Self, MissingFields> {
        Ok(Self {
            fields: kernel.traceable_fields()?,
            group_dead: u8::from(kernel.group_dead),
            reset_reason: u8::from(kernel.reset_reason),
            sock_i_uid: u8::from(kernel.sock_i_uid),
            sock_from_file: u8::from(kernel.sock_from_file),
            has_copies: u8::from(kernel.preempted),
            casts: 0,
            sigaction_size: kernel.sigaction_size,
            socket_cookie: 0,
            follow_children: 0,
            max_sockets: 0,
            log_level: 0,
        })
    }

    /// A loader that sets them in the object.
    pub fn loader(&self) -> EbpfLoader<'_> {
        let mut loader = loader::make();
        loader
            .override_global(globals::HAS_GROUP_DEAD, &self.group_dead, true)
            .override_global(globals::HAS_COPIES, &self.has_copies, true)
            .override_global(globals::HAS_CASTS, &self.casts, true)
            .override_global(globals::HAS_RESET_REASON, &self.reset_reason, true)
            .override_global(globals::HAS_SOCKET_COOKIE, &self.socket_cookie, true)
            .override_global(globals::HAS_SOCK_I_UID, &self.sock_i_uid, true)
            .override_global(globals::HAS_SOCK_FROM_FILE, &self.sock_from_file, true)
            .override_global(globals::FOLLOW_CHILDREN, &self.follow_children, true)
            .override_global(globals::K_SIGACTION_SIZE, &self.sigaction_size, true)
            .override_global(globals::MAX_SOCKETS, &self.max_sockets, true)
            .override_global(aya_log::LEVEL, &self.log_level, false);
        for field in self.fields {
            loader.override_global(field.field.global, &field.value, true);
        }
        loader
    }
}
