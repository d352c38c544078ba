//! Bytes of the maps and of the ring, turned into the ABI's records field by field.
//!
//! Nothing is transmuted: whatever bytes come, the result is a record or a typed error.

use sockleak_ebpf::{
    Death, EVENT_DEATH, EVENT_EXEC, EVENT_FORK, EVENT_STATE, EventHeader, ExecEvent, FdKey, ForkEvent,
    ProcessKey, STATE_CHANGES, SignalSent, SocketKey, SocketRecord, StateChange, StateEvent, Watched,
};

/// An event of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Fork(ForkEvent),
    Exec(ExecEvent),
    Death(EventHeader),
    State(StateEvent),
}

/// An event that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("an event of {0} bytes is too short")]
    TooShort(usize),
    #[error("an event has the unknown kind {0}")]
    UnknownKind(u32),
}

/// Decodes an event.
///
/// # Errors
/// When the bytes are fewer than the event's kind asks for, or the kind is unknown.
pub fn event(bytes: &[u8]) -> Result<Event, DecodeError> {
    let mut buf = Fields(bytes);
    let header = buf.header()?;
    Ok(match header.kind {
        EVENT_FORK => Event::Fork(ForkEvent {
            header,
            child: buf.u32()?,
            flags: buf.u32()?,
        }),
        EVENT_EXEC => Event::Exec(ExecEvent {
            header,
            comm: buf.array()?,
        }),
        EVENT_DEATH => Event::Death(header),
        EVENT_STATE => Event::State(StateEvent {
            header,
            laddr: buf.array()?,
            raddr: buf.array()?,
            netns: buf.u32()?,
            lport: buf.u16()?,
            rport: buf.u16()?,
            family: buf.u16()?,
            protocol: buf.u16()?,
            from: buf.u8()?,
            to: buf.u8()?,
            _pad: buf.array()?,
        }),
        kind => return Err(DecodeError::UnknownKind(kind)),
    })
}

macro_rules! decode_record {
    ($(#[$doc:meta])* $name:ident: $record:ty, $read:expr) => {
        $(#[$doc])*
        #[must_use]
        pub fn $name(bytes: &[u8; size_of::<$record>()]) -> $record {
            let read: fn(&mut Fields) -> Result<$record, DecodeError> = $read;
            read(&mut Fields(bytes)).expect("the array has the size of the record")
        }
    };
}

decode_record!(
    /// Decodes a key of `DEATHS`.
    process_key: ProcessKey, |buf| Ok(ProcessKey { start: buf.u64()?, tgid: buf.u32()?, _pad: buf.u32()? })
);
decode_record!(
    /// Decodes a value of `WATCHED`.
    watched: Watched, |buf| buf.watched()
);
decode_record!(
    /// Decodes a value of `DEATHS`.
    death: Death, |buf| buf.death()
);
decode_record!(
    /// Decodes a key of `ASIDE`.
    socket_key: SocketKey, |buf| {
        Ok(SocketKey { sk: buf.u64()?, time: buf.u64()?, tgid: buf.u32()?, origin: buf.u32()? })
    }
);
decode_record!(
    /// Decodes a key of `EXTRA_FDS`.
    fd_key: FdKey, |buf| Ok(FdKey { sk: buf.u64()?, time: buf.u64()?, tgid: buf.u32()?, fd: buf.u32()? })
);
decode_record!(
    /// Decodes a value of `SOCKETS` or `ASIDE`.
    socket_record: SocketRecord, |buf| buf.socket_record()
);

/// Encodes a value of `WATCHED` that user space puts there.
#[must_use]
pub fn encode_watched(flags: u32, parent: u32) -> [u8; size_of::<Watched>()] {
    let mut bytes = [0; size_of::<Watched>()];
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&parent.to_ne_bytes());
    bytes
}

/// Encodes a key of `DEATHS`.
#[must_use]
pub fn encode_process_key(key: &ProcessKey) -> [u8; size_of::<ProcessKey>()] {
    let mut bytes = [0; size_of::<ProcessKey>()];
    bytes[..8].copy_from_slice(&key.start.to_ne_bytes());
    bytes[8..12].copy_from_slice(&key.tgid.to_ne_bytes());
    bytes
}

/// Encodes a key of `ASIDE`.
#[must_use]
pub fn encode_socket_key(key: &SocketKey) -> [u8; size_of::<SocketKey>()] {
    let mut bytes = [0; size_of::<SocketKey>()];
    bytes[..8].copy_from_slice(&key.sk.to_ne_bytes());
    bytes[8..16].copy_from_slice(&key.time.to_ne_bytes());
    bytes[16..20].copy_from_slice(&key.tgid.to_ne_bytes());
    bytes[20..].copy_from_slice(&key.origin.to_ne_bytes());
    bytes
}

/// The owner of a value of `SOCKETS`: what [`SocketRecord::key`] tells of the whole record.
#[must_use]
pub fn socket_owner(sk: u64, record: &[u8; size_of::<SocketRecord>()]) -> SocketKey {
    let mut buf = Fields(record);
    let mut read = || {
        Ok(SocketKey {
            sk,
            time: buf.u64()?,
            tgid: buf.u32()?,
            origin: buf.u32()?,
        })
    };
    let owner: Result<_, DecodeError> = read();
    owner.expect("the array has the size of the record")
}

/// Encodes a key of `EXTRA_FDS`.
#[must_use]
pub fn encode_fd_key(key: &FdKey) -> [u8; size_of::<FdKey>()] {
    encode_socket_key(&SocketKey {
        sk: key.sk,
        time: key.time,
        tgid: key.tgid,
        origin: key.fd,
    })
}

/// A cursor that reads integers in native byte order and never runs over.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl Fields<'_> {
    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (array, rest) = self
            .0
            .split_first_chunk()
            .ok_or(DecodeError::TooShort(self.0.len()))?;
        self.0 = rest;
        Ok(*array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_ne_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_ne_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_ne_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_ne_bytes)
    }

    fn header(&mut self) -> Result<EventHeader, DecodeError> {
        Ok(EventHeader {
            time: self.u64()?,
            kind: self.u32()?,
            tgid: self.u32()?,
        })
    }

    fn signal_sent(&mut self) -> Result<SignalSent, DecodeError> {
        Ok(SignalSent {
            time: self.u64()?,
            signal: self.u32()?,
            sender: self.u32()?,
            sender_comm: self.array()?,
        })
    }

    fn watched(&mut self) -> Result<Watched, DecodeError> {
        Ok(Watched {
            start: self.u64()?,
            flags: self.u32()?,
            parent: self.u32()?,
            kill: self.signal_sent()?,
            core: self.signal_sent()?,
            term: self.signal_sent()?,
            dump_began: self.u64()?,
            dump_signal: self.u32()?,
            table: self.u32()?,
        })
    }

    fn death(&mut self) -> Result<Death, DecodeError> {
        Ok(Death {
            time: self.u64()?,
            exit_code: self.u32()?,
            group_exit_code: self.u32()?,
            signal_flags: self.u32()?,
            flags: self.u32()?,
            files_users: self.u32()?,
            ns_pid: self.u32()?,
            sockets: self.u32()?,
            not_recorded: self.u32()?,
            slots_skipped: self.u32()?,
            walk_ns: self.u32()?,
            comm: self.array()?,
            watched: self.watched()?,
        })
    }

    fn socket_record(&mut self) -> Result<SocketRecord, DecodeError> {
        Ok(SocketRecord {
            time: self.u64()?,
            tgid: self.u32()?,
            origin: self.u32()?,
            laddr: self.array()?,
            raddr: self.array()?,
            cookie: self.u64()?,
            inode: self.u64()?,
            msk: self.u64()?,
            netns: self.u32()?,
            lport: self.u16()?,
            rport: self.u16()?,
            family: self.u16()?,
            protocol: self.u16()?,
            fd: self.u32()?,
            fd_count: self.u32()?,
            references: self.u32()?,
            unread: self.u32()?,
            unacked: self.u32()?,
            accept_queue: self.u32()?,
            linger: self.u32()?,
            linger2: self.u32()?.cast_signed(),
            uid: self.u32()?,
            device: self.u32()?,
            state: self.u8()?,
            shutdown: self.u8()?,
            flags: self.u8()?,
            change_count: self.u8()?,
            reset_sent: self.u8()?,
            reset_reason: self.u8()?,
            reset_received: self.u8()?,
            reset_received_in: self.u8()?,
            _pad: self.array()?,
            changes: {
                let mut changes = [StateChange::default(); STATE_CHANGES];
                for change in &mut changes {
                    *change = StateChange(self.u64()?);
                }
                changes
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn hostile_bytes_are_an_event_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..96)) {
            let _ = event(&bytes);
        }

        #[test]
        fn an_event_of_every_kind_needs_all_its_bytes(kind in 1u32..=4, length in 0usize..64) {
            let mut bytes = vec![0; length];
            let needed = [size_of::<ForkEvent>(), size_of::<ExecEvent>(), size_of::<EventHeader>(), size_of::<StateEvent>()][kind as usize - 1];
            if length >= 12 {
                bytes[8..12].copy_from_slice(&kind.to_ne_bytes());
            }
            prop_assert_eq!(event(&bytes).is_ok(), length >= needed);
        }

        #[test]
        fn keys_survive_the_round_trip(sk: u64, time: u64, tgid: u32, origin: u32) {
            let key = SocketKey { sk, time, tgid, origin };
            prop_assert_eq!(socket_key(&encode_socket_key(&key)), key);
            let key = ProcessKey { start: time, tgid, _pad: 0 };
            prop_assert_eq!(process_key(&encode_process_key(&key)), key);
        }

        #[test]
        fn a_change_is_read_as_it_was_written(after in 0u64..1 << 56, from in 1u8..=12, to in 1u8..=12) {
            let change = StateChange::new(after, from, to);
            prop_assert_eq!((change.after(), change.from(), change.to()), (after, from, to));
        }
    }

    #[test]
    fn a_watched_process_is_encoded_as_it_is_decoded() {
        let decoded = watched(&encode_watched(2, 4242));
        assert_eq!(
            decoded,
            Watched {
                flags: 2,
                parent: 4242,
                ..Watched::default()
            }
        );
    }
}
