//! On what machine, with what, and how it was measured.

use std::path::Path;
use std::process::Command;
use std::{env, fs, thread};

use serde::Serialize;

/// The facts without which figures mean nothing.
#[derive(Debug, Serialize)]
pub struct Machine {
    pub kernel: String,
    pub cpu: String,
    pub cpus: usize,
    pub memory_mib: u64,
    /// Under a hypervisor, which takes time that the kernel accounts to whatever ran.
    pub virtual_machine: bool,
    pub commit: Option<String>,
    pub command: String,
    pub tcpstates: Option<String>,
    pub bpftrace: Option<String>,
    pub ss: Option<String>,
    /// Load average of the last minute, when the bench began: what else the machine had to do.
    pub load: f64,
    /// The administrator lets the kernel account always.
    pub stats_always_on: bool,
}

impl Machine {
    pub fn here(commit: Option<String>) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let stats = read("/proc/sys/kernel/bpf_stats_enabled");
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: line(&cpuinfo, "model name").unwrap_or("unknown").to_owned(),
            cpus: thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_mib: memory(&read("/proc/meminfo")).unwrap_or(0),
            virtual_machine: line(&cpuinfo, "flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            commit,
            command: command(env::args()),
            tcpstates: version(
                "dpkg-query",
                &["-W", "-f", "libbpf-tools ${Version}", "libbpf-tools"],
            )
            .or_else(|| version("tcpstates", &["--version"])),
            bpftrace: version("bpftrace", &["--version"]),
            ss: version("ss", &["-V"]),
            load: first_number(&read("/proc/loadavg")).unwrap_or(0.0),
            stats_always_on: stats.trim() != "0",
        }
    }
}

/// The value in a line `name : value` of /proc.
fn line<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let mut values = lines.filter(|(key, _)| key.trim() == name);
    values.next().map(|(_, value)| value.trim())
}

fn memory(meminfo: &str) -> Option<u64> {
    let kib: u64 = line(meminfo, "MemTotal")?.strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1024)
}

fn first_number(loadavg: &str) -> Option<f64> {
    loadavg.split(' ').next()?.parse().ok()
}

/// What a user typed: without what `cargo xtask bench` adds.
fn command(mut args: impl Iterator<Item = String>) -> String {
    let mut words = vec!["cargo xtask bench".to_owned()];
    args.next();
    while let Some(word) = args.next() {
        match word.as_str() {
            "--sockleak" | "--commit" => drop(args.next()),
            // Where the figures go is no part of how they were measured.
            "--json" | "--markdown" => words.extend([word, file_name(args.next())]),
            _ => words.push(word),
        }
    }
    words.join(" ")
}

fn file_name(path: Option<String>) -> String {
    let path = path.unwrap_or_default();
    let name = Path::new(&path).file_name();
    name.map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// The first line that a program prints, if it can be run.
fn version(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next()?.trim();
    (output.status.success() && !line.is_empty()).then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_proc() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu hypervisor\n";
        assert_eq!(line(cpuinfo, "model name"), Some("Some CPU"));
        assert_eq!(line(cpuinfo, "flags"), Some("fpu hypervisor"));
        assert_eq!(first_number("2.92 4.37 3.91 1/87 21510"), Some(2.92));
        assert_eq!(memory("MemTotal:       2048 kB\n"), Some(2));
    }

    #[test]
    fn the_command_is_what_was_typed() {
        let args = [
            "bench",
            "--sockleak",
            "/t/sockleak",
            "--rounds",
            "3",
            "--json",
            "/t/x.json",
        ];
        let told = command(args.map(str::to_owned).into_iter());
        assert_eq!(told, "cargo xtask bench --rounds 3 --json x.json");
    }
}
