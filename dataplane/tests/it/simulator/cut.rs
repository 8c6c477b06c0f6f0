//! Packets cut into fragments, as a sender's stack or a router would, or as an attacker.

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;

/// One fragment of a datagram: where it starts, and its frame.
pub type Fragment = (usize, Vec<u8>);

/// Writes the checksum of an IPv4 header.
pub fn mend(frame: &mut [u8]) {
    let header = &mut frame[ETHERNET..ETHERNET + 20];
    header[10..12].fill(0);
    let parsed = etherparse::Ipv4Header::from_slice(header).unwrap().0;
    header[10..12].copy_from_slice(&parsed.calc_header_checksum().to_be_bytes());
}

/// The fragment of a whole packet with the octets from `start` to `end` of what follows its header.
pub fn part(whole: &[u8], id: u16, start: usize, end: usize, more: bool) -> Vec<u8> {
    let offset = (start as u16).to_be_bytes();
    if whole[12..14] == [8, 0] {
        let mut frame = whole[..ETHERNET + 20].to_vec();
        frame.extend(&whole[ETHERNET + 20 + start..ETHERNET + 20 + end]);
        let total = (frame.len() - ETHERNET) as u16;
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        frame[18..20].copy_from_slice(&id.to_be_bytes());
        let field = (start as u16 / 8) | (u16::from(more) << 13);
        frame[20..22].copy_from_slice(&field.to_be_bytes());
        mend(&mut frame);
        return frame;
    }
    let mut frame = whole[..ETHERNET + 40].to_vec();
    let next = std::mem::replace(&mut frame[20], 44);
    frame.extend([next, 0, offset[0], offset[1] | u8::from(more), 0, 0]);
    frame.extend(id.to_be_bytes());
    frame.extend(&whole[ETHERNET + 40 + start..ETHERNET + 40 + end]);
    let payload = (frame.len() - ETHERNET - 40) as u16;
    frame[18..20].copy_from_slice(&payload.to_be_bytes());
    frame
}

/// Bytes of its IP header.
pub fn header(frame: &[u8]) -> usize {
    if frame[12..14] == [8, 0] { 20 } else { 40 }
}

/// Cuts a packet into fragments of at most `size` octets.
pub fn cut(whole: &[u8], id: u16, size: usize) -> Vec<Fragment> {
    let length = whole.len() - ETHERNET - header(whole);
    (0..length)
        .step_by(size)
        .map(|start| {
            let end = (start + size).min(length);
            (start, part(whole, id, start, end, end < length))
        })
        .collect()
}
