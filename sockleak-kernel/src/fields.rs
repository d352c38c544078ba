//! The struct members that the BPF programs read, looked up in a kernel's BTF.
//!
//! The table itself is [`sockleak_ebpf::kernel_fields`], which the programs expand too.

use sockleak_ebpf::{MISSING, kernel_fields};

use super::btf::{Btf, Member, MissingMember};

/// One row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    /// Name of the read-only global that takes the offset.
    pub global: &'static str,
    pub structure: &'static str,
    /// The way from the struct to the member.
    pub path: &'static [&'static str],
    pub kind: Kind,
    /// Without it nothing can be traced.
    pub required: bool,
}

/// What the programs expect of a member, and in which unit they want its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A member of that many bytes, at a byte offset.
    Bytes(u32),
    /// A member of that many bits, at a bit offset.
    Bits(u32),
    /// An array or struct of any width, at a byte offset.
    Array,
}

/// What a kernel says about a row.
#[derive(Debug, PartialEq, Eq)]
pub struct Resolved {
    pub field: &'static Field,
    /// What the field's global is set to: the byte or bit offset, or [`MISSING`].
    pub value: u32,
    /// Where BTF has the member, also when it is unlike what the programs expect.
    pub member: Option<Member>,
    /// Why the field cannot be read; `None` if it can.
    pub problem: Option<Problem>,
}

/// The members by which a program finds the current task without a call. Without them it asks a helper.
pub(super) const RUN_QUEUE: [&str; 3] = ["TASK_CFS_RQ", "CFS_RQ_RQ", "RQ_CURR"];

/// Members of which a kernel has those of one side or those of the other: a file's references are counted by `f_ref` since
/// 6.13, and the options of `struct inet_sock` are bits of one member since 6.6.
const ALTERNATIVES: [(&[&str], &[&str]); 2] = [
    (&["FILE_COUNT"], &["FILE_REF"]),
    (&["INET_FREEBIND", "INET_TRANSPARENT"], &["INET_FLAGS"]),
];

impl Resolved {
    /// Whether something is not known, or not done, because the kernel lacks it. `rows` are all of the table.
    #[must_use]
    pub fn is_missed(&self, rows: &[Self]) -> bool {
        let global = self.field.global;
        let is_there = |global: &&str| {
            let mut rows = rows.iter();
            rows.any(|row| row.field.global == *global && row.problem.is_none())
        };
        let are_there = |globals: &[&str]| globals.iter().all(is_there);
        let is_replaced = ALTERNATIVES.iter().any(|(former, later)| {
            (former.contains(&global) && are_there(later)) || (later.contains(&global) && are_there(former))
        });
        self.problem.is_some() && !RUN_QUEUE.contains(&global) && !is_replaced
    }
}

/// Why a member cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error(transparent)]
    Missing(#[from] MissingMember),
    #[error("{field} is {found} bits wide in this kernel, not {expected}")]
    Width {
        field: String,
        expected: u32,
        found: u32,
    },
    #[error("{field} does not begin at a byte in this kernel but at bit {bit_offset}")]
    Alignment { field: String, bit_offset: u32 },
}

/// Required members that a kernel does not have in a form that the programs can read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this kernel cannot be traced: {}", join(.0))]
pub struct MissingFields(pub Vec<Problem>);

macro_rules! table {
    ($($global:ident: $structure:ident.$($member:ident).+, $kind:ident $($width:literal)?, $need:ident;)*) => {
        /// Every row, in the table's order.
        pub static FIELDS: &[Field] = &[$(Field {
            global: stringify!($global),
            structure: stringify!($structure),
            path: &[$(stringify!($member)),+],
            kind: table!(@kind $kind $($width)?),
            required: table!(@need $need),
        }),*];
    };
    (@kind bytes $width:literal) => { Kind::Bytes($width) };
    (@kind bits $width:literal) => { Kind::Bits($width) };
    (@kind array) => { Kind::Array };
    (@need required) => { true };
    (@need optional) => { false };
}

kernel_fields!(table);

impl Field {
    /// The path as it is written in C: `skc_net.net`.
    #[must_use]
    pub fn member_name(&self) -> String {
        self.path.join(".")
    }

    fn look_up(&'static self, btf: &Btf) -> Resolved {
        match btf.member(self.structure, self.path) {
            Err(missing) => Resolved {
                field: self,
                value: MISSING,
                member: None,
                problem: Some(missing.into()),
            },
            Ok(member) => {
                let problem = self.judge(member);
                let value = match (&problem, self.kind) {
                    (Some(_), _) => MISSING,
                    (None, Kind::Bits(_)) => member.bit_offset,
                    (None, Kind::Bytes(_) | Kind::Array) => member.bit_offset / 8,
                };
                Resolved {
                    field: self,
                    value,
                    member: Some(member),
                    problem,
                }
            }
        }
    }

    fn judge(&self, member: Member) -> Option<Problem> {
        let field = || format!("{}.{}", self.structure, self.member_name());
        let (expected, in_bytes) = match self.kind {
            Kind::Bytes(width) => (width * 8, true),
            Kind::Bits(width) => (width, false),
            Kind::Array => (member.bits, true),
        };
        if member.bits != expected {
            return Some(Problem::Width {
                field: field(),
                expected,
                found: member.bits,
            });
        }
        (in_bytes && !member.bit_offset.is_multiple_of(8)).then(|| Problem::Alignment {
            field: field(),
            bit_offset: member.bit_offset,
        })
    }
}

/// Looks up every row. What is missing is told in the row.
#[must_use]
pub fn look_up(btf: &Btf) -> Vec<Resolved> {
    FIELDS.iter().map(|field| field.look_up(btf)).collect()
}

/// Refuses a kernel that cannot be traced.
///
/// # Errors
///
/// Names every required member that is missing or has another width.
pub fn refuse_missing(rows: &[Resolved]) -> Result<(), MissingFields> {
    let missing: Vec<Problem> = rows
        .iter()
        .filter(|row| row.field.required)
        .filter_map(|row| row.problem.clone())
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(MissingFields(missing))
    }
}

fn join(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: Kind) -> Field {
        Field {
            global: "SK_SHUTDOWN",
            structure: "sock",
            path: &["sk_shutdown"],
            kind,
            required: true,
        }
    }

    #[test]
    fn the_table_has_every_shape() {
        let find = |global| FIELDS.iter().find(|field| field.global == global).unwrap();
        assert_eq!(find("SK_NET").path, ["skc_net", "net"]);
        assert_eq!(find("SK_NET").kind, Kind::Bytes(8));
        assert_eq!(find("SK_REUSE").kind, Kind::Bits(4));
        assert_eq!(find("PID_NUMBERS").kind, Kind::Array);
        assert!(find("SK_STATE").required);
        assert!(!find("FILE_REF").required);
    }

    #[test]
    fn another_width_counts_as_missing() {
        let member = |bit_offset, bits| Member { bit_offset, bits };
        assert_eq!(row(Kind::Bytes(1)).judge(member(8, 8)), None);
        assert_eq!(row(Kind::Bits(8)).judge(member(9, 8)), None);
        assert_eq!(row(Kind::Array).judge(member(64, 1024)), None);
        let told = |kind, member| row(kind).judge(member).unwrap().to_string();
        assert_eq!(
            told(Kind::Bytes(1), member(8, 2)),
            "sock.sk_shutdown is 2 bits wide in this kernel, not 8"
        );
        assert_eq!(
            told(Kind::Array, member(9, 64)),
            "sock.sk_shutdown does not begin at a byte in this kernel but at bit 9"
        );
    }

    #[test]
    fn a_kernel_without_types_lacks_every_required_field() {
        let mut empty = 0xeb9f_u16.to_ne_bytes().to_vec();
        empty.extend_from_slice(&[1, 0]);
        for word in [24_u32, 0, 0, 0, 0] {
            empty.extend_from_slice(&word.to_ne_bytes());
        }
        let btf = Btf::parse(&empty).unwrap();
        let rows = look_up(&btf);
        let missing = refuse_missing(&rows).unwrap_err();
        assert_eq!(
            missing.0.len(),
            FIELDS.iter().filter(|field| field.required).count()
        );
        assert!(missing.to_string().contains("no struct task_struct"));
        assert!(rows.iter().all(|row| row.value == MISSING));
    }

    /// Of `file.f_count` and `file.f_ref` a kernel has one; everything else is in every kernel.
    #[test]
    #[ignore = "needs a kernel with BTF"]
    fn every_row_resolves_on_the_running_kernel() {
        let btf = Btf::running().unwrap();
        let rows = look_up(&btf);
        let missed: Vec<_> = rows.iter().filter(|row| row.is_missed(&rows)).collect();
        assert!(missed.is_empty(), "{missed:#?}");
        // Each side that it has stands for another one.
        let missing: Vec<_> = rows.iter().filter(|row| row.problem.is_some()).collect();
        assert!((2..=3).contains(&missing.len()), "{missing:#?}");
    }
}
