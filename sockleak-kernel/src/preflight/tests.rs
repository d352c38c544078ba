use std::io;

use sockleak_core::observed::Protocol;
use sockleak_ebpf::MISSING;

use super::*;
use crate::btf::{BtfError, MissingMember};
use crate::fields::{FIELDS, Problem};
use crate::sock_diag::SockDiagError;

const ALL_CAPABILITIES: u64 = 0x1ff_ffff_ffff;

/// A machine where nothing is missing but BTF, which only a kernel has.
fn good() -> Facts {
    Facts {
        release: "6.12.107-amd64".to_owned(),
        btf: Err(BtfError::NoHeader),
        rights: all_rights(),
        sock_diag: Ok(()),
        port_table: Some(Ok(())),
        bpf_refused: false,
        nested_pid_namespace: false,
        time_namespace: Ok(()),
    }
}

fn all_rights() -> Rights {
    Rights {
        effective_capabilities: ALL_CAPABILITIES,
        bounding_capabilities: ALL_CAPABILITIES,
        nested_user_namespace: false,
        seccomp_filter: false,
        lockdown: Some("[none] integrity confidentiality\n".to_owned()),
        executable: "/usr/bin/sockleak".to_owned(),
    }
}

/// A machine where nothing is missing but rights.
fn with(rights: Rights) -> Facts {
    Facts { rights, ..good() }
}

fn find(facts: &Facts, name: &str) -> Requirement {
    let mut all = facts.requirements();
    all.retain(|requirement| requirement.name == name);
    all.pop().unwrap()
}

#[test]
fn only_what_is_missing_is_unmet() {
    let unmet: Vec<_> = good()
        .requirements()
        .into_iter()
        .filter(|requirement| !requirement.met)
        .collect();
    assert_eq!(unmet.len(), 1);
    assert_eq!(unmet[0].name, "btf");
    assert!(unmet[0].fix.as_ref().unwrap().contains("CONFIG_DEBUG_INFO_BTF"));
}

#[test]
fn missing_capabilities_are_named_with_the_command() {
    let nobody = with(Rights {
        effective_capabilities: 0,
        ..all_rights()
    });
    let bpf = find(&nobody, "bpf_capabilities");
    assert!(bpf.required && !bpf.met);
    assert_eq!(
        bpf.detail,
        "missing CAP_BPF (load programs and maps), CAP_PERFMON (trace, and read the kernel's structs)"
    );
    assert_eq!(
        bpf.fix.unwrap(),
        "`sudo /usr/bin/sockleak ...`, or once `sudo setcap \
         cap_bpf,cap_perfmon,cap_dac_read_search,cap_sys_ptrace,cap_sys_admin+ep /usr/bin/sockleak`"
    );
    let others = find(&nobody, "process_capabilities");
    assert!(!others.required && !others.met && others.detail.contains("CAP_SYS_PTRACE"));

    let admin = with(Rights {
        effective_capabilities: 1 << 21,
        ..all_rights()
    });
    assert!(find(&admin, "bpf_capabilities").met);
}

#[test]
fn what_a_container_does_not_allow_sudo_does_not_give() {
    let bounded = with(Rights {
        effective_capabilities: 1 << 38,
        bounding_capabilities: 1 << 38,
        ..all_rights()
    });
    let fix = find(&bounded, "bpf_capabilities").fix.unwrap();
    assert!(
        fix.contains("no process here may have CAP_BPF") && fix.contains("`docker run --cap-add=BPF ...`"),
        "{fix}"
    );
}

#[test]
fn capabilities_of_a_user_namespace_do_not_count() {
    let nested = with(Rights {
        nested_user_namespace: true,
        ..all_rights()
    });
    for (name, required) in [("bpf_capabilities", true), ("process_capabilities", false)] {
        let found = find(&nested, name);
        assert_eq!((found.met, found.required), (false, required));
        assert!(found.detail.contains("user namespace"), "{}", found.detail);
    }
}

#[test]
fn a_refusal_in_spite_of_all_capabilities_has_other_reasons() {
    let refused = |seccomp_filter, effective_capabilities| {
        let facts = Facts {
            bpf_refused: true,
            ..with(Rights {
                seccomp_filter,
                effective_capabilities,
                ..all_rights()
            })
        };
        let found = find(&facts, "bpf_capabilities");
        assert!(!found.met && found.required);
        found.detail
    };
    assert!(refused(true, ALL_CAPABILITIES).contains("seccomp"));
    assert!(refused(false, ALL_CAPABILITIES).contains("security module"));
    assert!(refused(true, 0).contains("missing CAP_BPF"));
}

#[test]
fn only_confidentiality_locks_out() {
    let lockdown = |text: Option<&str>| {
        let facts = with(Rights {
            lockdown: text.map(str::to_owned),
            ..all_rights()
        });
        find(&facts, "lockdown")
    };
    assert!(lockdown(None).met);
    assert!(lockdown(Some("none [integrity] confidentiality")).met);
    assert!(lockdown(Some("garbage")).met);
    assert!(!lockdown(Some("none integrity [confidentiality]\n")).met);
}

#[test]
fn old_kernels_and_nested_namespaces_are_refused() {
    let refused = |facts: &Facts, name: &str| {
        let requirement = find(facts, name);
        assert!(requirement.required && !requirement.met);
        format!("{}: {}", requirement.detail, requirement.fix.unwrap())
    };
    let old = Facts {
        release: "5.4.0-42-generic".to_owned(),
        ..good()
    };
    assert_eq!(
        refused(&old, "kernel"),
        "Linux 5.4.0-42-generic is older than 5.10: boot Linux 5.10 or later"
    );
    let nested = Facts {
        nested_pid_namespace: true,
        ..good()
    };
    assert!(refused(&nested, "pid_namespace").contains("docker run --privileged --pid=host"));
    let elsewhen = Facts {
        time_namespace: Err("its children would be elsewhere".to_owned()),
        ..good()
    };
    assert_eq!(
        refused(&elsewhen, "time_namespace"),
        "its children would be elsewhere: start it as a child: `sh -c '/usr/bin/sockleak ...; exit $?'`"
    );
    let blind = Facts {
        sock_diag: Err(SockDiagError::NoHandler(Protocol::Tcp)),
        ..good()
    };
    assert!(refused(&blind, "sock_diag").contains("sudo modprobe tcp_diag"));
    let denied = Facts {
        sock_diag: Err(io::Error::from_raw_os_error(libc::EPERM).into()),
        ..good()
    };
    let denied = refused(&denied, "sock_diag");
    assert!(
        denied.contains("not permitted") && denied.contains("AF_NETLINK"),
        "{denied}"
    );
    assert_eq!(version("7.3-rc1"), Some((7, 3)));
    assert_eq!(version(""), None);
}

#[test]
fn without_iterators_the_rest_still_works() {
    let facts = |effective_capabilities| Facts {
        port_table: Some(Err(
            "the kernel refused the BPF program port_files: Invalid argument".to_owned(),
        )),
        ..with(Rights {
            effective_capabilities,
            ..all_rights()
        })
    };
    let able = find(&facts(ALL_CAPABILITIES), "port_table");
    assert!(!able.required && !able.met);
    assert!(able.detail.contains("port_files") && able.fix.unwrap().contains("nothing needs to be done"));
    let nobody = facts(0);
    assert_eq!(
        find(&nobody, "port_table").fix,
        find(&nobody, "bpf_capabilities").fix
    );
}

#[test]
#[ignore = "needs a kernel with BTF"]
fn the_running_kernel_has_the_fields() {
    let facts = Facts::gather();
    for name in ["kernel", "btf", "fields", "optional_fields", "sock_diag"] {
        let requirement = find(&facts, name);
        assert!(requirement.met, "{requirement:?}");
    }
}

#[test]
fn a_member_that_only_saves_time_is_not_missed() {
    let without = |global: &str| {
        let rows = FIELDS.iter().map(|field| {
            let missing = field.global == global || field.global == "FILE_COUNT";
            Resolved {
                field,
                value: MISSING,
                member: None,
                problem: missing.then(|| {
                    Problem::Missing(MissingMember::Struct {
                        structure: field.structure.to_owned(),
                    })
                }),
            }
        });
        of_fields(&rows.collect::<Vec<_>>())
    };
    for (global, met) in [
        ("TASK_CFS_RQ", true),
        ("CFS_RQ_RQ", true),
        ("RQ_CURR", true),
        ("SK_UID", false),
    ] {
        let [required, optional] = without(global);
        assert!(required.met);
        assert_eq!(optional.met, met, "{global}: {}", optional.detail);
    }
}
