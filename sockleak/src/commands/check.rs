//! `sockleak check`: can it run here, and what to do if not.

use std::io::stdout;

use anyhow::{Context as _, Result};
use sockleak_kernel::btf::Btf;
use sockleak_kernel::{fields, preflight};

use super::cli::{CheckArgs, Common};
use crate::exit_status::ExitStatus;
use crate::output::{Checks, FieldRow, RequirementRow};

/// Prints one line for each requirement, or for each struct member of another kernel; the exit status is 2
/// when something required is missing.
///
/// # Errors
/// When the BTF file cannot be read, or stdout cannot be written.
pub fn run(common: &Common, args: &CheckArgs) -> Result<u8> {
    let mut checks = Checks::new(stdout().lock(), common.output);
    let Some(file) = &args.btf else {
        let requirements = preflight::requirements();
        for requirement in &requirements {
            checks.requirement(&RequirementRow {
                name: requirement.name,
                required: requirement.required,
                met: requirement.met,
                detail: &requirement.detail,
                fix: requirement.fix.as_deref(),
            })?;
        }
        let refused = requirements.iter().any(|one| one.required && !one.met);
        return Ok(ExitStatus::Unmet.unless(!refused));
    };
    let btf = Btf::open(file).with_context(|| format!("{} cannot be used", file.display()))?;
    let mut refused = false;
    for row in fields::look_up(&btf) {
        let found = row.problem.is_none();
        refused |= row.field.required && !found;
        checks.field(&FieldRow {
            structure: row.field.structure,
            member: row.field.member_name(),
            bit_offset: row.member.map(|member| member.bit_offset),
            bits: row.member.map(|member| member.bits),
            required: row.field.required,
            found,
        })?;
    }
    Ok(ExitStatus::Unmet.unless(!refused))
}
