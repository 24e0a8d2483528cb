//! What kleak's programs write and its report reads: the one thing that both sides share.

/// One allocation, or the end of one: 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Record {
    /// Nanoseconds of the monotonic clock.
    pub(crate) time: u64,
    /// Who called the allocator.
    pub(crate) call_site: u64,
    /// What was allocated or freed.
    pub(crate) pointer: u64,
    /// Bytes allocated; zero when freed.
    pub(crate) bytes: u64,
}
