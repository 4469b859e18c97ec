//! Plain integers out of a record, in this machine's byte order.

use bytes::{Buf, Bytes, TryGetError};

pub(super) fn u64(bytes: &mut Bytes) -> Result<u64, TryGetError> {
    bytes.try_get_u64_ne()
}

pub(super) fn i64(bytes: &mut Bytes) -> Result<i64, TryGetError> {
    bytes.try_get_i64_ne()
}

pub(super) fn u32(bytes: &mut Bytes) -> Result<u32, TryGetError> {
    bytes.try_get_u32_ne()
}
