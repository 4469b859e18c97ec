//! Packets between the processes, with descriptors.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};

use super::protocol::{FILES, PACKET};

/// A packet, and the descriptors that came with it.
pub(super) type Packet = (Vec<u8>, Vec<OwnedFd>);

/// Two ends that keep packets apart.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (unix, packets) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    Ok(socketpair(unix, packets, SocketFlags::CLOEXEC, None)?)
}

/// Sends a packet. Where the other end does not read, and with `DONTWAIT`, it fails.
pub(super) fn send(
    to: impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES + 1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = flags | SendFlags::NOSIGNAL;
    sendmsg(to, &[IoSlice::new(bytes)], &mut ancillary, flags)?;
    Ok(())
}

/// The next packet; `None` when the other end has gone.
pub(super) fn receive(from: impl AsFd, flags: RecvFlags) -> io::Result<Option<Packet>> {
    let mut bytes = vec![0; PACKET];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES + 1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        from,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut ancillary,
        flags | RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // No packet is empty: this is the end.
    if received.bytes == 0 {
        return Ok(None);
    }
    bytes.truncate(received.bytes);
    Ok(Some((bytes, descriptors)))
}

/// The same without descriptors: the kernel closes those that were sent.
pub(super) fn receive_bytes(from: impl AsFd, flags: RecvFlags) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; PACKET];
    let (length, whole) = rustix::net::recv(from, bytes.as_mut_slice(), flags | RecvFlags::TRUNC)?;
    if whole > length {
        return Err(io::ErrorKind::InvalidData.into());
    }
    bytes.truncate(length);
    Ok((length > 0).then_some(bytes))
}
