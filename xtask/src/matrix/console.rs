//! What a kernel complains about on its console.

/// How the messages begin that tell of a bug: of `WARN()`, of `BUG()`, and of what finds broken memory.
const BEGINNINGS: [&str; 4] = ["WARNING: ", "BUG: ", "kernel BUG at ", "UBSAN: "];
/// What `die()` puts between the name of a fault and its number: `Oops: 0010 [#1] SMP NOPTI`.
const FAULT: &str = " [#";
/// It says that something took long, as soft lockups, stalls of RCU, blocked tasks and unstable clocks do, which have
/// other beginnings. An emulated processor of a busy machine is slow, and a guest that really hangs is ended.
const SLOW: &str = "BUG: workqueue lockup";
/// Comes before the text of a warning, which comes before the line that begins with WARNING.
const BEGIN: &str = "[ cut here ]";
const END: &str = "[ end trace";
/// How many lines before the one that was recognized may belong to it.
const BEFORE: usize = 8;
/// How many lines from that one on belong to a complaint without an end.
const AFTER: usize = 80;

/// Each complaint with its stack.
pub fn complaints(console: &str) -> Vec<String> {
    let lines: Vec<_> = console.lines().collect();
    let mut complaints = Vec::new();
    let mut rest = 0;
    while let Some(found) = (rest..lines.len()).find(|line| is_complaint(lines[*line])) {
        let mut before = rest.max(found.saturating_sub(BEFORE))..found;
        let begin = before.rfind(|line| lines[*line].contains(BEGIN)).unwrap_or(found);
        let mut after = found..lines.len().min(found + AFTER);
        let limit = after.end;
        let end = after.find(|line| lines[*line].contains(END));
        rest = end.map_or(limit, |end| end + 1);
        complaints.push(lines[begin..rest].join("\n"));
    }
    complaints
}

fn is_complaint(line: &str) -> bool {
    let message = message(line);
    let is_bug = BEGINNINGS.iter().any(|words| message.starts_with(words));
    (is_bug && !message.starts_with(SLOW)) || message.contains(FAULT)
}

/// A line without its time, `[    3.067663] `, and without the task or processor that newer kernels add, `[   T96] `.
fn message(line: &str) -> &str {
    let mut message = line;
    while let Some((_, rest)) = message.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        message = rest.trim_start();
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAN: &str = "\
[    0.776559] mtrr: your CPUs had inconsistent fixed MTRR settings
[    1.727852] Unstable clock detected, switching default tracing clock to \"global\"
[    3.138947] victim[80]: segfault at 7fdf5adc0000 ip 00007fdf5ae45b62 sp 00007ffe9dcb8b90 error 6 in victim[7fdf5ae31000+124000]
[    3.139673] Code: 01 00 00 be 00 10 00 00 31 ff 31 d2 b9 22 00 00 00 41 b8 ff ff ff ff 45 31 c9 ff 15 18 71 11 00
";
    const WARNING: &str = "\
[    2.953394] ------------[ cut here ]------------
[    2.953577] trace type BPF program uses run-time allocation
[    2.953972] WARNING: CPU: 1 PID: 129 at kernel/bpf/verifier.c:10493 bpf_check+0x2f92/0x3470
[    2.954395] CPU: 1 PID: 129 Comm: sockleak Not tainted 5.10.0-32-cloud-amd64 #1 Debian 5.10.223-1
[    2.956399] Call Trace:
[    2.961642]  bpf_prog_load+0x474/0x890
[    2.963183] ---[ end trace 38426983c323ccc7 ]---";
    const BUG: &str = "\
[    1.795176] ------------[ cut here ]------------
[    1.795376] kernel BUG at mm/mempolicy.c:2073!
[    1.795746] invalid opcode: 0000 [#1] SMP NOPTI
[    1.795932] CPU: 0 PID: 108 Comm: sockleak Not tainted 5.10.0-32-cloud-amd64 #1 Debian 5.10.223-1
[    1.798198] Call Trace:
[    1.800841] ---[ end trace 370d1803b04042b1 ]---";
    const OOPS: &str = "\
[    2.129771] BUG: kernel NULL pointer dereference, address: 0000000000000000
[    2.129990] #PF: supervisor instruction fetch in kernel mode
[    2.130314] Oops: 0010 [#1] SMP NOPTI
[    2.130467] CPU: 0 PID: 107 Comm: sockleak Not tainted 5.10.0-32-cloud-amd64 #1 Debian 5.10.223-1
[    2.135781] ---[ end trace 12f3b59c13c921a6 ]---";
    /// A processor that ran in a circle for a minute.
    const SLOW: &str = "\
[   28.529183] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [sockleak:108]
[   28.529605] Modules linked in: veth unix_diag udp_diag tcp_diag inet_diag
[   28.537186] Call Trace:
[   28.537848]  ? watchdog_timer_fn+0x1bb/0x210
";

    #[test]
    fn a_clean_console_has_none() {
        assert_eq!(complaints(CLEAN), [""; 0]);
        assert_eq!(complaints(SLOW), [""; 0]);
    }

    #[test]
    fn each_complaint_is_shown_with_its_stack_and_no_other_line() {
        let console = [CLEAN, WARNING, "\r\n", CLEAN, BUG, "\n", OOPS, "\n", SLOW, CLEAN].concat();
        assert_eq!(complaints(&console), [WARNING, BUG, OOPS]);
    }

    #[test]
    fn a_fault_is_enough_and_needs_no_end() {
        let fault = "[    9.1][   T12] Oops: general protection fault, probably for non-canonical address: 0000 [#1] SMP";
        assert_eq!(
            complaints(&[fault, "\n", CLEAN].concat()),
            [[fault, "\n", CLEAN.trim_end()].concat()]
        );
        assert_eq!(
            complaints("[    9.1][   T12] BUG: sleeping function called").len(),
            1
        );
        assert_eq!(
            complaints("[    9.1][   T12] BUG: workqueue lockup - pool").len(),
            0
        );
        assert_eq!(
            complaints("Spectre V2 : WARNING: Unprivileged eBPF is enabled").len(),
            0
        );
    }
}
