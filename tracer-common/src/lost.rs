//! Counters of what was seen and what was lost, by reason.

/// Task storage gave no slot (its lock was held, or no memory): the episode is
/// found by the iterator instead.
pub const STORAGE: u32 = 0;
/// The ring of exits was full: the task's totals went to the table by comm.
pub const EXIT_RING: u32 = 1;
/// That table was full too, or the task was older than the last snapshot: what
/// it did since then is gone.
pub const EXIT_TABLE: u32 = 2;
/// The ring of folds was full: a kernel sample is short of one CPU's names.
pub const FOLD_RING: u32 = 3;
/// The walk over a CPU's run queue did not come to its end: more tasks than a
/// fold can name, or the list changed meanwhile.
pub const FOLD_LIST: u32 = 4;
/// Not a loss: exits seen, to hold delivered and lost ones against.
pub const EXITS_SEEN: u32 = 5;
/// A task was woken whose going to sleep no program saw, and the begin could not be read
/// from the task either: its slot is out of reach (its lock is held, 6.1), or no snapshot
/// has related the scheduler's clock to CLOCK_MONOTONIC yet.
pub const WAKING: u32 = 6;
/// Not a loss: episodes over the threshold, to hold delivered and lost ones against.
pub const EPISODES_SEEN: u32 = 7;
/// The ring of episodes was full: the time is counted, its cause is not.
pub const EPISODE_RING: u32 = 8;
/// The table of stacks was full: an episode has no cause.
pub const STACK_TABLE: u32 = 9;
/// More network namespaces than are told apart: sockets by state are too few.
pub const NAMESPACES: u32 = 10;
/// More pairs of a process and a port than the table holds.
pub const ACTORS: u32 = 11;
/// More ports than the table holds.
pub const PORTS: u32 = 12;
/// More sockets in CLOSE_WAIT than the table holds, or no memory: one is counted by
/// its state only.
pub const WAITING: u32 = 13;
/// The ring of transitions at the start was full: sockets by state may be off.
pub const SEED_RING: u32 = 14;
/// The ring of openings was full: it is not known where a socket was opened.
pub const OPENING_RING: u32 = 15;
/// The ring of kills was full: who was killed is not told, unless the kernel's log has it.
pub const KILL_RING: u32 = 16;
/// More listeners than the table holds, or no memory: of one the queues are not known.
pub const LISTENERS: u32 = 17;
/// More kinds of connections by SYN cookie than the table holds, or no memory: a cookie is
/// counted for its namespace only.
pub const COOKIES: u32 = 18;
/// The ring of kills was half full, and the rest is for memory kills: a SIGKILL of a
/// process is not told.
pub const KILL_SIGNALS: u32 = 19;
/// Not a loss: transitions that went to the ring of transitions or were lost there, to
/// know when all that went there have been read.
pub const SEEDS_SEEN: u32 = 20;
/// Number of counters.
pub const COUNTERS: u32 = 21;
