//! Large packets between pods, a wire's to everybody else.

use crate::lab::{Lab, MANIFESTS, in_namespace, needs, text};
use crate::{Outcome, Test};

pub const TESTS: &[Test] = &[
    (
        "pods_exchange_large_packets_and_the_world_a_wires",
        pods_exchange_large_packets_and_the_world_a_wires,
    ),
    (
        "a_route_that_promises_too_much_is_corrected",
        a_route_that_promises_too_much_is_corrected,
    ),
];

/// A host of the external world, which answers at every port.
const OUTSIDE: [&str; 2] = ["203.0.113.7", "2001:db8::7"];

/// `ping` of so many bytes of payload that may not be fragmented; what it says if it is not
/// answered.
fn ping(lab: &Lab, to: &str, bytes: usize) -> Result<(), String> {
    let script = format!("ping -M do -c 2 -i 0.2 -W 2 -s {bytes} {to}");
    let output = lab.sh("shop/client", &script);
    if output.status.success() {
        Ok(())
    } else {
        Err(text(&output))
    }
}

fn pods_exchange_large_packets_and_the_world_a_wires() -> Outcome {
    needs(&["bash", "ping"])?;
    let lab = Lab::up(MANIFESTS);
    let (v4, v6) = lab.addresses("shop/web");
    for (to, outside, headers) in [(v4, OUTSIDE[0], 28), (v6, OUTSIDE[1], 48)] {
        for bytes in [56, 1472, 3800, 3900, 8000, 59_000] {
            assert_eq!(ping(&lab, &to, bytes), Ok(()), "{bytes} bytes to {to}");
        }
        assert_eq!(ping(&lab, outside, 1500 - headers), Ok(()));
        let refused = ping(&lab, outside, 1501 - headers).unwrap_err();
        assert!(refused.contains("1500"), "{refused}");
    }
    Ok(())
}

/// The pods' routes say what a wire carries. Where one says more, the daemon tells the pod, and
/// clamps what TCP asks for.
fn a_route_that_promises_too_much_is_corrected() -> Outcome {
    needs(&["bash", "ping", "ip", "curl"])?;
    let lab = Lab::up(MANIFESTS);
    let pod = format!("weir-{}-shop-client", lab.name);
    for (outside, headers, gateway) in
        [(OUTSIDE[0], 28, "169.254.1.1"), (OUTSIDE[1], 48, "fe80::1")]
    {
        let family = if outside.contains(':') { "-6" } else { "-4" };
        let route = ["ip", family, "route", "add", outside, "via", gateway];
        let rest = ["dev", "eth0", "onlink", "mtu", "60000"];
        let added = in_namespace(&pod, &[&route[..], &rest[..]].concat());
        assert!(added.status.success(), "{}", text(&added));
        // The server's segments are as large as the client's SYN lets them be, the client's as the
        // server's SYN-ACK does: were they not clamped, nothing of a long request would arrive.
        let url = match family {
            "-6" => format!("http://[{outside}]:80/"),
            _ => format!("http://{outside}:80/"),
        };
        let script = format!(
            "head -c 300000 /dev/zero | curl -gs -m 5 -o /dev/null --data-binary @- {url}; \
             ip {family} route get {outside}"
        );
        let sent = lab.sh("shop/client", &script);
        assert!(sent.status.success(), "{}", text(&sent));
        assert!(
            text(&sent).contains("mtu 60000"),
            "learnt by TCP: {}",
            text(&sent)
        );
        let said = ping(&lab, outside, 8000).unwrap_err();
        assert!(said.contains("1500"), "{said}");
        // Now it knows, and says so itself.
        let learnt = in_namespace(&pod, &["ip", family, "route", "get", outside]);
        assert!(text(&learnt).contains("mtu 1500"), "{}", text(&learnt));
        assert_eq!(ping(&lab, outside, 1500 - headers), Ok(()));
    }
    Ok(())
}
