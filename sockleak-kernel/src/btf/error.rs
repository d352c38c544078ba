//! Why bytes are no BTF.

use std::io;

/// Why bytes are not BTF that can be read.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    #[error("cannot read {path}: {source}")]
    Read { path: String, source: io::Error },
    #[error("not BTF: it ends within its header")]
    NoHeader,
    #[error("not BTF: it does not begin with the magic number 0xeb9f")]
    Magic,
    #[error("BTF of a machine with the other byte order")]
    ByteOrder,
    #[error("BTF version {0}, which is not known (known: 1)")]
    Version(u8),
    #[error("broken BTF: the {0} section reaches beyond the end")]
    Section(&'static str),
    #[error("broken BTF: type {0} reaches beyond the end")]
    Truncated(u32),
    #[error("type {id} is of kind {kind}, which is not known")]
    Kind { id: u32, kind: u8 },
}
