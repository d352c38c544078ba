//! The few type ids that a load asks for, as BTF of their own.

use aya_obj::btf::{BtfType, Func, FuncLinkage, Typedef};

use super::TRACEPOINT;

/// `BTF_KIND_TYPEDEF`, where `struct btf_type.info` has the kind.
const TYPEDEF: u32 = 8 << 24;

/// Named types and their ids in the running kernel, in ascending order of the ids.
///
/// aya looks a name up in BTF, and making that of the whole BTF of the kernel takes longer than all else at the start. It
/// gets BTF that has the same ids and nothing but these names in it.
#[derive(Clone, Debug, Default)]
pub struct Ids(Vec<(u32, Named)>);

#[derive(Clone, Debug)]
enum Named {
    Typedef(String),
    Function(String),
}

impl Ids {
    /// Adds a tracepoint. One that the kernel does not have is left out, and then its program cannot be loaded.
    pub fn add_tracepoint(&mut self, name: &str, id: Option<u32>) {
        self.add(id, Named::Typedef(format!("{TRACEPOINT}{name}")));
    }

    /// Adds a function. One that the kernel does not have is left out.
    pub fn add_function(&mut self, name: &str, id: Option<u32>) {
        self.add(id, Named::Function(name.to_owned()));
    }

    fn add(&mut self, id: Option<u32>, named: Named) {
        self.0.extend(id.map(|id| (id, named)));
        self.0.sort_by_key(|(id, _)| *id);
    }

    /// BTF in which these names, and no others, have their ids.
    #[must_use]
    pub(crate) fn to_btf(&self) -> aya::Btf {
        let mut btf = aya::Btf::new();
        // It has id 0 already.
        let mut next = 1;
        for (id, named) in &self.0 {
            for _ in next..*id {
                btf.add_type(BtfType::Unknown);
            }
            let named = match named {
                Named::Typedef(name) => BtfType::Typedef(typedef(btf.add_string(name))),
                Named::Function(name) => {
                    BtfType::Func(Func::new(btf.add_string(name), 0, FuncLinkage::Static))
                }
            };
            next = btf.add_type(named) + 1;
        }
        btf
    }
}

/// A typedef with the name at this offset.
fn typedef(name: u32) -> Typedef {
    // SAFETY: It is `repr(C)` and has the members of `struct btf_type`: where the name is, the kind, and the type. aya-obj
    // keeps its constructor to itself. Any three numbers are valid, and a test looks the name up.
    unsafe { std::mem::transmute::<[u32; 3], Typedef>([name, TYPEDEF, 0]) }
}
