//! SYN cookies by listener.

/// Counters of sources seen, for an estimate of how many there are (HyperLogLog): its
/// error is 1.04 / sqrt(256), 6.5 %.
pub const REGISTERS: usize = 256;
/// Sources that are kept of each CPU, the latest.
pub const SAMPLES: usize = 256;
/// Most kinds of connections by cookie, of all listeners.
pub const KINDS: u32 = 4096;
/// A listener takes cookies for so long after its queue was full last:
/// `TCP_SYNCOOKIE_VALID`, include/net/tcp.h.
pub const VALID_NS: u64 = 120_000_000_000;

/// What a connection by cookie has.
pub const HAS_TIMESTAMPS: u32 = 1;
/// See [`HAS_TIMESTAMPS`].
pub const HAS_WINDOW_SCALING: u32 = 2;
/// See [`HAS_TIMESTAMPS`].
pub const HAS_SACK: u32 = 4;
/// See [`HAS_TIMESTAMPS`].
pub const HAS_ECN: u32 = 8;

/// What a listener did with cookies.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CookieTotals {
    /// Sent.
    pub sent: u64,
    /// Came back and were good, whether a connection came of it or not.
    pub valid: u64,
    /// Connections that came of it.
    pub established: u64,
    /// Came back and were not good.
    pub failed: u64,
    /// When one was sent last, in ns (CLOCK_MONOTONIC).
    pub last_sent_ns: u64,
    /// Sources: a byte a register, the longest run of zeros in a hash of each that falls
    /// on it.
    pub registers: [u64; REGISTERS / 8],
}

/// A kind of connections by cookie.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CookieKind {
    /// The listener's address in the kernel.
    pub listener: u64,
    /// Maximum segment size in bytes, as the cookie could keep it.
    pub mss: u32,
    /// [`HAS_TIMESTAMPS`] and so on.
    pub has: u32,
}

/// Who was sent a cookie.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The listener's address in the kernel.
    pub listener: u64,
    /// Address, of IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
}

/// The latest sources of a CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Sources {
    /// How many there were; the next goes to this slot, modulo [`SAMPLES`].
    pub count: u64,
    /// The latest of them.
    pub latest: [Source; SAMPLES],
}

/// Who is answered on a CPU at the moment.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Answering {
    /// The listener that a SYN is for.
    pub syn: u64,
    /// The listener that an ACK is for, where the end of the function does not say.
    pub ack: u64,
    /// Whether that can be a cookie.
    pub is_answer: u64,
}
