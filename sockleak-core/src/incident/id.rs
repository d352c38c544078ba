//! The name of an incident.

use std::fmt;

use jiff::Timestamp;

/// What tells an incident from all others: `i` and six digits of base 32. A recording gives the same one again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IncidentId(u32);

impl IncidentId {
    /// Six digits of five bits.
    const BITS: u32 = 30;

    /// That of the incident which this death opens.
    pub(super) fn of(pid: u32, death: Timestamp) -> Self {
        // FNV-1a.
        let bytes = pid
            .to_le_bytes()
            .into_iter()
            .chain(death.as_nanosecond().to_le_bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self((hash ^ hash >> Self::BITS) as u32 & ((1 << Self::BITS) - 1))
    }
}

impl fmt::Display for IncidentId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the letters that look like digits or like each other.
        const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
        formatter.write_str("i")?;
        for place in (0..Self::BITS / 5).rev() {
            let digit = self.0 >> (place * 5) & 31;
            write!(formatter, "{}", char::from(DIGITS[digit as usize]))?;
        }
        Ok(())
    }
}
