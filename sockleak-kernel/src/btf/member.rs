//! Where a struct member is.

use super::raw::{Kind, Type};
use super::{Btf, MAX_HOPS};

/// How deep anonymous structs may be nested in each other. The kernel nests a handful.
const MAX_DEPTH: u32 = 16;
/// How many members one lookup examines before it gives up. `task_struct` has a few hundred.
const MAX_MEMBERS: u32 = 1 << 18;

/// The place of a member in its struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// From the beginning of the outermost struct.
    pub bit_offset: u32,
    /// Width; 0 for a flexible array.
    pub bits: u32,
}

/// What of a member's path the kernel does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MissingMember {
    #[error("the kernel's BTF has no struct {structure}")]
    Struct { structure: String },
    /// `member` is the path up to and with the first component that is missing.
    #[error("the kernel's struct {structure} has no member {member}")]
    Member { structure: String, member: String },
}

/// A member that was found, before its width is known.
struct Found {
    bit_offset: u32,
    /// Width of a bit field that its struct gives.
    bits: Option<u32>,
    type_id: u32,
}

impl Btf {
    /// The place of the member that `path` leads to from a struct or union.
    ///
    /// Members of anonymous structs and unions count as members of the struct around them, as in C. A
    /// path leads through structs, unions and arrays (their first element) but not through pointers.
    /// Where several structs have the name, the first that has the member is taken.
    ///
    /// # Errors
    ///
    /// Names the struct or the part of the path that the kernel does not have.
    pub fn member(&self, structure: &str, path: &[&str]) -> Result<Member, MissingMember> {
        let mut missing = None;
        let mut search = Search {
            btf: self,
            members_left: MAX_MEMBERS,
        };
        for (id, found) in self.named(structure) {
            if !found.kind.is_aggregate() {
                continue;
            }
            match self.walk(&mut search, id, path) {
                Ok(member) => return Ok(member),
                Err(depth) => missing = missing.max(Some(depth)),
            }
        }
        let structure = structure.to_owned();
        Err(match missing {
            None => MissingMember::Struct { structure },
            Some(depth) => MissingMember::Member {
                structure,
                member: path[..path.len().min(depth + 1)].join("."),
            },
        })
    }

    /// Follows the path; the error is the index of the component that is missing.
    fn walk(&self, search: &mut Search<'_>, id: u32, path: &[&str]) -> Result<Member, usize> {
        let mut place = Found {
            bit_offset: 0,
            bits: None,
            type_id: id,
        };
        for (depth, name) in path.iter().enumerate() {
            place = self
                .element(place.type_id)
                .and_then(|aggregate| search.find(&aggregate, name.as_bytes(), place.bit_offset, 0))
                .ok_or(depth)?;
        }
        self.width(place).ok_or(path.len().saturating_sub(1))
    }

    /// The struct or union that a type is, or that its elements are.
    fn element(&self, mut id: u32) -> Option<Type> {
        for _ in 0..MAX_HOPS {
            let found = self.resolve(id)?;
            match found.kind {
                Kind::Struct | Kind::Union => return Some(found),
                Kind::Array => id = found.array(&self.data)?.0,
                _ => return None,
            }
        }
        None
    }

    fn width(&self, place: Found) -> Option<Member> {
        let mut bit_offset = place.bit_offset;
        if let Some(bits) = place.bits {
            return Some(Member { bit_offset, bits });
        }
        let mut elements: u32 = 1;
        let mut id = place.type_id;
        for _ in 0..MAX_HOPS {
            let found = self.resolve(id)?;
            let element_bits = match found.kind {
                Kind::Array => {
                    let (element, count) = found.array(&self.data)?;
                    elements = elements.checked_mul(count)?;
                    id = element;
                    continue;
                }
                // Before kind_flag a bit field was a member whose integer type is narrower than its storage.
                Kind::Int if elements == 1 => {
                    let (offset, bits) = found.int_bits(&self.data)?;
                    bit_offset = bit_offset.checked_add(offset)?;
                    bits
                }
                // Every kernel that sockleak runs on is a 64-bit kernel.
                Kind::Ptr => 64,
                Kind::Int | Kind::Struct | Kind::Union | Kind::Enum | Kind::Enum64 | Kind::Float => {
                    found.size_or_type.checked_mul(8)?
                }
                _ => return None,
            };
            return Some(Member {
                bit_offset,
                bits: element_bits.checked_mul(elements)?,
            });
        }
        None
    }
}

/// A search within one struct and its anonymous members. The budget ends it where hostile BTF nests
/// structs so that the number of ways through them is exponential.
struct Search<'a> {
    btf: &'a Btf,
    members_left: u32,
}

impl Search<'_> {
    fn find(&mut self, aggregate: &Type, name: &[u8], base: u32, depth: u32) -> Option<Found> {
        let data = &self.btf.data;
        for index in 0..aggregate.vlen {
            self.members_left = self.members_left.checked_sub(1)?;
            let member = aggregate.member(data, index)?;
            let (offset, bits) = if aggregate.kind_flag {
                (member.offset & 0x00ff_ffff, member.offset >> 24)
            } else {
                (member.offset, 0)
            };
            let bit_offset = base.checked_add(offset)?;
            let member_name = self.btf.name(member.name)?;
            if member_name == name {
                return Some(Found {
                    bit_offset,
                    bits: (bits != 0).then_some(bits),
                    type_id: member.type_id,
                });
            }
            if !member_name.is_empty() || depth >= MAX_DEPTH {
                continue;
            }
            let inner = self.btf.resolve(member.type_id);
            if let Some(inner) = inner.filter(|inner| inner.kind.is_aggregate())
                && let Some(found) = self.find(&inner, name, bit_offset, depth + 1)
            {
                return Some(found);
            }
        }
        None
    }
}
