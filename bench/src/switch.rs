//! The programs of a tool, attached and detached without the tool.
//!
//! A tool that starts and ends disturbs the processors for longer than its programs take in the same time. Its programs
//! outlive it here, with their maps as the tool left them, so that nothing but them comes and goes.

use std::borrow::Cow;

use anyhow::{Context as _, Result, bail};
use aya::programs::raw_trace_point::RawTracePointLinkId;
use aya::programs::tp_btf::BtfTracePointLinkId;
use aya::programs::{BtfTracePoint, ProgramInfo, ProgramType, RawTracePoint, loaded_programs};

use crate::accounting::Account;

/// Every program that a process has attached by a link, detached.
pub struct Switch(Vec<Hook>);

/// A program, and what it is attached by at present.
enum Hook {
    Typed(BtfTracePoint, Option<BtfTracePointLinkId>),
    Raw(RawTracePoint, String, Option<RawTracePointLinkId>),
}

impl Switch {
    /// Of a process that is attached, which stays as it is and must end before the switch is turned on.
    ///
    /// # Errors
    /// When it has no links, or those of another kind than to tracepoints.
    pub fn of(pid: u32) -> Result<Self> {
        let account = Account::of(pid)?;
        let hooks: Vec<_> = account
            .links()
            .iter()
            .map(|(program, tracepoint)| Hook::of(*program, tracepoint))
            .collect::<Result<_>>()?;
        if hooks.is_empty() {
            bail!("process {pid} has no program attached by a link");
        }
        Ok(Self(hooks))
    }

    /// # Errors
    /// When the kernel refuses it.
    pub fn on(&mut self) -> Result<()> {
        self.0.iter_mut().try_for_each(Hook::attach)
    }

    /// # Errors
    /// When the kernel refuses it.
    pub fn off(&mut self) -> Result<()> {
        self.0.iter_mut().try_for_each(Hook::detach)
    }
}

impl Hook {
    fn of(program: u64, tracepoint: &str) -> Result<Self> {
        // A program may go while the list is read.
        let mut known = loaded_programs().flatten();
        let info: ProgramInfo = known
            .find(|info| u64::from(info.id()) == program)
            .with_context(|| format!("program {program} is gone"))?;
        let name = Cow::Owned(tracepoint.to_owned());
        Ok(match info.program_type() {
            kind if kind == ProgramType::Tracing.into() => {
                // SAFETY: Programs of this type that a link names a tracepoint for are BPF_TRACE_RAW_TP, which is what
                // this type stands for.
                Self::Typed(unsafe { BtfTracePoint::from_program_info(info, name) }?, None)
            }
            _ => Self::Raw(
                RawTracePoint::from_program_info(info, name)?,
                tracepoint.to_owned(),
                None,
            ),
        })
    }

    fn attach(&mut self) -> Result<()> {
        match self {
            Self::Typed(program, link) => *link = Some(program.attach()?),
            Self::Raw(program, tracepoint, link) => *link = Some(program.attach(tracepoint)?),
        }
        Ok(())
    }

    fn detach(&mut self) -> Result<()> {
        match self {
            Self::Typed(program, link) => link.take().map(|link| program.detach(link)).transpose()?,
            Self::Raw(program, _, link) => link.take().map(|link| program.detach(link)).transpose()?,
        };
        Ok(())
    }
}
