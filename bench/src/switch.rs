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

/// Every program that a process has at a tracepoint by a link.
pub struct Switch(Vec<Hook>);

/// A program, and what it is attached by at present.
enum Hook {
    TpBtf(BtfTracePoint, Option<BtfTracePointLinkId>),
    RawTp(RawTracePoint, String, Option<RawTracePointLinkId>),
}

impl Switch {
    /// Of a process that is attached. It must end before the switch is turned on: what it has attached stays so.
    ///
    /// # Errors
    /// When it has no such program.
    pub fn of(pid: u32) -> Result<Self> {
        let account = Account::of(pid)?;
        let hooks: Vec<_> = account
            .links()
            .iter()
            .map(|(program, tracepoint)| Hook::of(*program, tracepoint))
            .collect::<Result<_>>()?;
        if hooks.is_empty() {
            bail!("process {pid} has no program at a tracepoint");
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
        if info.program_type() == ProgramType::Tracing.into() {
            // SAFETY: Of programs of this type only those of BPF_TRACE_RAW_TP have a link that names a tracepoint, and
            // that is what this type stands for.
            let program = unsafe { BtfTracePoint::from_program_info(info, name) }?;
            return Ok(Self::TpBtf(program, None));
        }
        let program = RawTracePoint::from_program_info(info, name)?;
        Ok(Self::RawTp(program, tracepoint.to_owned(), None))
    }

    fn attach(&mut self) -> Result<()> {
        match self {
            Self::TpBtf(program, link) => *link = Some(program.attach()?),
            Self::RawTp(program, tracepoint, link) => *link = Some(program.attach(tracepoint)?),
        }
        Ok(())
    }

    fn detach(&mut self) -> Result<()> {
        match self {
            Self::TpBtf(program, link) => link.take().map(|link| program.detach(link)).transpose()?,
            Self::RawTp(program, _, link) => link.take().map(|link| program.detach(link)).transpose()?,
        };
        Ok(())
    }
}
