//! The attributes behind a socket's row.

use std::time::Duration;

use bytes::Buf;

pub(super) const INET_DIAG_INFO: u16 = 2;
pub(super) const INET_DIAG_ULP_INFO: u16 = 19;
pub(super) const INET_ULP_INFO_NAME: u16 = 1;

/// include/uapi/linux/tcp.h.
const TCPI_OPT_TIMESTAMPS: u8 = 1;

/// What is wanted of `struct tcp_info` (include/uapi/linux/tcp.h).
#[derive(Default)]
pub(super) struct TcpInfo {
    /// `tcpi_rto`. A listener's is 0.
    pub rto: Option<Duration>,
    /// `tcpi_backoff`.
    pub backoff: u8,
    /// TCPI_OPT_TIMESTAMPS of `tcpi_options`.
    pub timestamps: Option<bool>,
    /// `tcpi_last_ack_recv`.
    pub last_ack: Option<Duration>,
}

/// Nothing where the kernel gave none, as of a mini socket.
pub(super) fn tcp_info(attributes: &[u8]) -> Option<TcpInfo> {
    let mut value = attribute(attributes, INET_DIAG_INFO).filter(|value| value.len() >= 60)?;
    value.advance(4);
    let backoff = value.get_u8();
    let options = value.get_u8();
    value.advance(2);
    let rto = Duration::from_micros(u64::from(value.get_u32_ne()));
    value.advance(44);
    let last_ack = Duration::from_millis(u64::from(value.get_u32_ne()));
    let rto = Some(rto).filter(|rto| !rto.is_zero());
    Some(TcpInfo {
        rto,
        backoff,
        timestamps: Some(options & TCPI_OPT_TIMESTAMPS != 0),
        last_ack: rto.and(Some(last_ack)),
    })
}

/// Its upper layer protocol is MPTCP (`subflow_ulp_ops`, net/mptcp/subflow.c).
pub(super) fn is_subflow(attributes: &[u8]) -> bool {
    let name = attribute(attributes, INET_DIAG_ULP_INFO).and_then(|info| attribute(info, INET_ULP_INFO_NAME));
    name == Some(b"mptcp\0")
}

/// The value of the first attribute of that kind.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while attributes.len() >= 4 {
        let mut header = attributes;
        let length = usize::from(header.get_u16_ne());
        let kind = header.get_u16_ne();
        let value = attributes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}
