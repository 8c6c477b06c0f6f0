//! A packet as a line.

use std::net::SocketAddr;

use k8s_openapi::jiff::Timestamp;

use crate::flow::{Flow, FlowEnd};
use crate::protocol::{CaptureDirection, CapturedPacket};

/// `02:03:04.567890123 Out shop/a:4000 > shop/web-0:80: TCP SYN, length 74: FORWARDED to …`, in UTC.
pub fn line(packet: &CapturedPacket) -> String {
    let time = Timestamp::from_nanosecond(packet.time_ns.into()).unwrap_or_default();
    let time = time.strftime("%H:%M:%S.%9f");
    let direction = match packet.direction {
        CaptureDirection::In => "In ",
        CaptureDirection::Out => "Out",
    };
    let what = match &packet.flow {
        Some(flow) => flow_text(flow),
        None => frame_text(&packet.data.0),
    };
    let (length, comment) = (packet.length, &packet.comment);
    format!("{time} {direction} {what}, length {length}: {comment}\n")
}

fn flow_text(flow: &Flow) -> String {
    let (source, destination) = (end(&flow.source), end(&flow.destination));
    let flags = match flow.tcp_flags.is_empty() {
        true => String::new(),
        false => format!(" {}", flow.tcp_flags.join(",")),
    };
    format!("{source} > {destination}: {}{flags}", flow.protocol)
}

fn end(end: &FlowEnd) -> String {
    match (end.pod_name(), end.port) {
        (Some(pod), Some(port)) => format!("{pod}:{port}"),
        (Some(pod), None) => pod,
        (None, Some(port)) => SocketAddr::new(end.ip, port).to_string(),
        (None, None) => end.ip.to_string(),
    }
}

/// What is no IP, or no whole packet, by its Ethernet header.
fn frame_text(bytes: &[u8]) -> String {
    let Some([head @ .., high, low]) = bytes.first_chunk::<14>() else {
        return "a frame too short for Ethernet".to_owned();
    };
    let mac = |bytes: &[u8]| {
        let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        digits.join(":")
    };
    let (destination, source) = head.split_at(6);
    let kind = match u16::from_be_bytes([*high, *low]) {
        0x0806 => "ARP".to_owned(),
        0x0800 => "malformed IPv4".to_owned(),
        0x86dd => "malformed IPv6".to_owned(),
        other => format!("ethertype {other:#06x}"),
    };
    format!("{} > {}: {kind}", mac(source), mac(destination))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::FlowVerdict;
    use k8s_openapi::ByteString;

    #[test]
    fn a_line_says_who_what_and_why() {
        let end = |ip: &str, port, pod: Option<&str>| FlowEnd {
            ip: ip.parse().unwrap(),
            port,
            namespace: pod.map(|_| "shop".into()),
            pod: pod.map(Into::into),
            labels: Default::default(),
            workload: None,
        };
        let mut packet = CapturedPacket {
            time_ns: 1_795_226_400_000_000_007,
            port: 3,
            direction: CaptureDirection::In,
            length: 74,
            comment: "DROPPED (policy_denied)".into(),
            data: ByteString(vec![0; 14]),
            flow: Some(Flow {
                time: String::new(),
                verdict: FlowVerdict::Dropped,
                reason: String::new(),
                direction: None,
                source: end("fd00::1", Some(4000), None),
                destination: end("fd00::2", Some(80), Some("web-0")),
                service: None,
                protocol: "TCP".into(),
                tcp_flags: vec!["SYN".into(), "ACK".into()],
                policy: None,
                generation: 1,
                node: String::new(),
            }),
        };
        assert_eq!(
            line(&packet),
            "02:00:00.000000007 In  [fd00::1]:4000 > shop/web-0:80: TCP SYN,ACK, length 74: \
             DROPPED (policy_denied)\n"
        );
        packet.flow = None;
        packet.data.0[12..].copy_from_slice(&[8, 6]);
        let arp = "00:00:00:00:00:00 > 00:00:00:00:00:00: ARP, length 74";
        assert!(line(&packet).contains(arp), "{}", line(&packet));
    }
}
