//! The bytes of BTF: header, type records and what follows each of them.

use super::error::BtfError;

pub(super) const MAGIC: u16 = 0xeb9f;
pub(super) const VERSION: u8 = 1;
/// `struct btf_header` up to and with `str_len`. Later kernels may append to it; `hdr_len` says so.
const HEADER: usize = 24;
/// `struct btf_type`.
const TYPE: usize = 12;

/// Start and end of the two sections, as offsets into the whole.
pub(super) struct Sections {
    pub(super) types: (usize, usize),
    pub(super) strings: (usize, usize),
}

/// BTF_KIND_* of include/uapi/linux/btf.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Int,
    Ptr,
    Array,
    Struct,
    Union,
    Enum,
    Fwd,
    Typedef,
    Volatile,
    Const,
    Restrict,
    Func,
    FuncProto,
    Var,
    Datasec,
    Float,
    DeclTag,
    TypeTag,
    Enum64,
}

impl Kind {
    fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Int,
            2 => Self::Ptr,
            3 => Self::Array,
            4 => Self::Struct,
            5 => Self::Union,
            6 => Self::Enum,
            7 => Self::Fwd,
            8 => Self::Typedef,
            9 => Self::Volatile,
            10 => Self::Const,
            11 => Self::Restrict,
            12 => Self::Func,
            13 => Self::FuncProto,
            14 => Self::Var,
            15 => Self::Datasec,
            16 => Self::Float,
            17 => Self::DeclTag,
            18 => Self::TypeTag,
            19 => Self::Enum64,
            _ => return None,
        })
    }

    /// How many bytes follow the record. Two numbers for each kind are a table, where arms that compute would be jumps
    /// that no processor foresees.
    fn payload(self, vlen: usize) -> usize {
        let (once, each) = match self {
            Self::Int | Self::Var | Self::DeclTag => (4, 0),
            Self::Array => (12, 0),
            Self::Struct | Self::Union | Self::Datasec | Self::Enum64 => (0, 12),
            Self::Enum | Self::FuncProto => (0, 8),
            Self::Ptr
            | Self::Fwd
            | Self::Typedef
            | Self::Volatile
            | Self::Const
            | Self::Restrict
            | Self::Func
            | Self::Float
            | Self::TypeTag => (0, 0),
        };
        once + vlen * each
    }

    /// A struct or a union.
    pub(super) fn is_aggregate(self) -> bool {
        matches!(self, Self::Struct | Self::Union)
    }

    /// A kind that only renames or qualifies the type it refers to.
    pub(super) fn is_transparent(self) -> bool {
        matches!(
            self,
            Self::Typedef | Self::Volatile | Self::Const | Self::Restrict | Self::TypeTag
        )
    }
}

/// `struct btf_type`, and where what follows it begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Type {
    /// Offset of the name in the string section.
    pub(super) name: u32,
    pub(super) kind: Kind,
    /// How many members, enumerators or parameters follow.
    pub(super) vlen: u32,
    /// For a struct: its member offsets hold bit-field sizes. For an enum: its values are signed.
    pub(super) kind_flag: bool,
    /// Size in bytes, or the type that is referred to.
    pub(super) size_or_type: u32,
    payload: usize,
}

/// `struct btf_member`.
pub(super) struct RawMember {
    pub(super) name: u32,
    pub(super) type_id: u32,
    /// With `kind_flag`: bit-field size in the top 8 bits, bit offset in the rest. Without: the bit offset.
    pub(super) offset: u32,
}

impl Type {
    pub(super) fn read(data: &[u8], start: usize) -> Option<Self> {
        let record = data.get(start..start.checked_add(TYPE)?)?;
        let info = u32_at(record, 4)?;
        Some(Self {
            name: u32_at(record, 0)?,
            // Bits 16 to 23 and 29 to 30 are reserved in version 1 and must be zero there (BTF_INFO_MASK in
            // kernel/bpf/btf.c), so reading the wider fields takes nothing away, and an unknown kind is noticed.
            vlen: info & 0x00ff_ffff,
            kind: Kind::from_number((info >> 24) as u8 & 0x7f)?,
            kind_flag: info >> 31 == 1,
            size_or_type: u32_at(record, 8)?,
            payload: start + TYPE,
        })
    }

    /// A member of a struct or union.
    pub(super) fn member(&self, data: &[u8], index: u32) -> Option<RawMember> {
        let start = self.payload + index as usize * 12;
        Some(RawMember {
            name: u32_at(data, start)?,
            type_id: u32_at(data, start + 4)?,
            offset: u32_at(data, start + 8)?,
        })
    }

    /// Element type and number of elements of an array.
    pub(super) fn array(&self, data: &[u8]) -> Option<(u32, u32)> {
        Some((u32_at(data, self.payload)?, u32_at(data, self.payload + 8)?))
    }

    /// Bit offset within its storage and width in bits of an integer.
    pub(super) fn int_bits(&self, data: &[u8]) -> Option<(u32, u32)> {
        let encoding = u32_at(data, self.payload)?;
        Some((encoding >> 16 & 0xff, encoding & 0xff))
    }

    /// Name and value of an enumerator.
    pub(super) fn enumerator(&self, data: &[u8], index: u32) -> Option<(u32, i64)> {
        if self.kind == Kind::Enum64 {
            let start = self.payload + index as usize * 12;
            let low = u64::from(u32_at(data, start + 4)?);
            let high = u64::from(u32_at(data, start + 8)?);
            return Some((u32_at(data, start)?, (high << 32 | low).cast_signed()));
        }
        let start = self.payload + index as usize * 8;
        let value = u32_at(data, start + 4)?;
        let value = if self.kind_flag {
            i64::from(value.cast_signed())
        } else {
            i64::from(value)
        };
        Some((u32_at(data, start)?, value))
    }
}

/// Checks the header and finds the two sections.
pub(super) fn sections(data: &[u8]) -> Result<Sections, BtfError> {
    let header = data.get(..HEADER).ok_or(BtfError::NoHeader)?;
    let magic = u16::from_ne_bytes([header[0], header[1]]);
    if magic == MAGIC.swap_bytes() {
        return Err(BtfError::ByteOrder);
    }
    if magic != MAGIC {
        return Err(BtfError::Magic);
    }
    if header[2] != VERSION {
        return Err(BtfError::Version(header[2]));
    }
    let field = |at: usize| u32_at(header, at).ok_or(BtfError::NoHeader);
    let base = u64::from(field(4)?);
    let section = |name: &'static str, offset: u32, length: u32| {
        let start = base + u64::from(offset);
        let end = start + u64::from(length);
        let fits = base >= HEADER as u64 && end <= data.len() as u64;
        if fits {
            Ok((start as usize, end as usize))
        } else {
            Err(BtfError::Section(name))
        }
    };
    Ok(Sections {
        types: section("type", field(8)?, field(12)?)?,
        strings: section("string", field(16)?, field(20)?)?,
    })
}

/// Notes where each type begins, and shows each one by its id. Every record it notes is complete.
pub(super) fn index(
    data: &[u8],
    (start, end): (usize, usize),
    mut show: impl FnMut(u32, &Type),
) -> Result<Vec<u32>, BtfError> {
    let types = &data[..end];
    // The smallest record bounds the number of types, and so what a hostile length can allocate.
    let mut offsets = Vec::with_capacity((end - start) / TYPE / 2 + 1);
    offsets.push(0);
    let mut at = start;
    while at < end {
        let id = offsets.len() as u32;
        let info = u32_at(types, at + 4).ok_or(BtfError::Truncated(id))?;
        let found = Type::read(types, at).ok_or(BtfError::Kind {
            id,
            kind: (info >> 24) as u8 & 0x7f,
        })?;
        let next = found.payload + found.kind.payload(found.vlen as usize);
        if next > end {
            return Err(BtfError::Truncated(id));
        }
        show(id, &found);
        offsets.push(at as u32);
        at = next;
    }
    Ok(offsets)
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}
