//! Whether a task or an interrupt woke a task, told by the kernel stack of the waking.
//!
//! An interrupt runs on top of a task that has nothing to do with it. Its entry is on
//! the stack: functions outside of it are the bystander's.

/// What an interrupt wakes for, innermost functions first: the first that is on the
/// stack names it.
const SOURCES: &[(&str, &str)] = &[
    ("hrtimer_wakeup", "timer"),
    ("__hrtimer_run_queues", "timer"),
    ("process_timeout", "timer"),
    ("call_timer_fn", "timer"),
    ("run_timer_softirq", "timer"),
    ("net_rx_action", "network"),
    ("net_tx_action", "network"),
    ("blk_done_softirq", "block device"),
    ("blk_complete_reqs", "block device"),
    ("blk_mq_complete_request", "block device"),
    ("blk_mq_end_request", "block device"),
    ("blk_update_request", "block device"),
    ("bio_endio", "block device"),
    ("rcu_core", "RCU"),
    ("rcu_do_batch", "RCU"),
    ("tasklet_action_common", "tasklet"),
    ("irq_work_run", "irq_work"),
    ("irq_work_run_list", "irq_work"),
    ("sched_ttwu_pending", "another CPU"),
    ("flush_smp_call_function_queue", "another CPU"),
    ("__flush_smp_call_function_queue", "another CPU"),
    ("__sysvec_call_function_single", "another CPU"),
];

/// Functions that only a softirq runs below.
const SOFTIRQ: &[&str] = &["__do_softirq", "handle_softirqs", "softirqs"];

/// Functions that only an interrupt handler runs below, and beginnings of such.
const HARDIRQ: &[&str] = &[
    "__handle_irq_event_percpu",
    "handle_irq_event",
    "common_interrupt",
    "__common_interrupt",
    "el1_interrupt",
    "el0_interrupt",
    "do_interrupt_handler",
    "generic_handle_arch_irq",
];
const HARDIRQ_BEGINNINGS: &[&str] = &[
    "asm_sysvec_",
    "sysvec_",
    "__sysvec_",
    "asm_common_interrupt",
];

/// An interrupt that woke a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// A softirq, else a handler.
    pub is_soft: bool,
    /// What for, such as `timer`; a fixed word.
    pub source: &'static str,
}

/// The interrupt of a waking; `None` when it was a task. `frames` are functions,
/// innermost first.
pub fn interrupt<S: AsRef<str>>(frames: &[S]) -> Option<Interrupt> {
    let names = || frames.iter().map(AsRef::as_ref);
    let is_soft = |name: &str| SOFTIRQ.contains(&name);
    let is_hard = |name: &str| {
        HARDIRQ.contains(&name)
            || HARDIRQ_BEGINNINGS
                .iter()
                .any(|begin| name.starts_with(begin))
    };
    let entry = names().position(|name| is_soft(name) || is_hard(name))?;
    let source = names().take(entry).find_map(|name| {
        let known = SOURCES.iter().find(|(function, _)| *function == name);
        known.map(|(_, source)| *source)
    });
    Some(Interrupt {
        is_soft: names().nth(entry).is_some_and(is_soft),
        source: source.unwrap_or("device"),
    })
}

#[cfg(test)]
mod tests {
    use super::{Interrupt, interrupt};

    #[test]
    fn the_innermost_entry_decides() {
        let timer = [
            "try_to_wake_up",
            "hrtimer_wakeup",
            "__hrtimer_run_queues",
            "hrtimer_interrupt",
            "__sysvec_apic_timer_interrupt",
            "asm_sysvec_apic_timer_interrupt",
            "do_syscall_64",
        ];
        let expected = Interrupt {
            is_soft: false,
            source: "timer",
        };
        assert_eq!(interrupt(&timer), Some(expected));
        let disk = [
            "try_to_wake_up",
            "blk_complete_reqs",
            "handle_softirqs",
            "__irq_exit_rcu",
            "common_interrupt",
        ];
        let expected = Interrupt {
            is_soft: true,
            source: "block device",
        };
        assert_eq!(interrupt(&disk), Some(expected));
        assert_eq!(
            interrupt(&["try_to_wake_up", "complete", "mm_release", "do_exit"]),
            None
        );
        assert_eq!(interrupt::<&str>(&[]), None);
    }
}
