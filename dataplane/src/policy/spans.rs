//! A rule's peers as spans of addresses.
//!
//! Prefixes of both families become spans of the one number line that [`Address`] orders. There
//! IPv4 lies inside the IPv6 prefix `::ffff:0:0/96`, which no IPv6 block may hold: an IPv6 span
//! that covers it (`::/0` does) is cut in two around it.

use ipnet::IpNet;

use super::ir::Block;
use crate::Address;

/// The addresses from `first` to `last`, both inclusive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Span {
    pub(super) first: u128,
    pub(super) last: u128,
}

/// Where IPv4 lies.
pub(super) const V4: Span = Span {
    first: Address::v4(0).0,
    last: Address::v4(u32::MAX).0,
};

/// The addresses in any of `blocks`: sorted, disjoint, with gaps between them, so that equal sets
/// are equal lists however they were written.
pub(super) fn of_blocks(blocks: &[Block]) -> Vec<Span> {
    let mut spans = Vec::with_capacity(blocks.len());
    for block in blocks {
        push_block(block, &mut spans);
    }
    union(spans)
}

/// Adds what is left of `block` without its exceptions.
fn push_block(block: &Block, spans: &mut Vec<Span>) {
    if block.except.is_empty() {
        spans.extend(of_prefix(&block.prefix));
        return;
    }
    let excepts = union(block.except.iter().flat_map(of_prefix).collect());
    for span in of_prefix(&block.prefix) {
        let mut rest = Some(span);
        for except in &excepts {
            let Some(span) = rest else { break };
            if except.last < span.first || span.last < except.first {
                continue;
            }
            if span.first < except.first {
                spans.push(Span {
                    first: span.first,
                    last: except.first - 1,
                });
            }
            rest = (except.last < span.last).then(|| Span {
                first: except.last + 1,
                last: span.last,
            });
        }
        spans.extend(rest);
    }
}

/// The spans of one prefix: one for IPv4, none to two for IPv6.
fn of_prefix(prefix: &IpNet) -> impl Iterator<Item = Span> + use<> {
    let spans = match prefix {
        IpNet::V4(v4) => [
            Some(Span {
                first: Address::v4(v4.network().into()).0,
                last: Address::v4(v4.broadcast().into()).0,
            }),
            None,
        ],
        IpNet::V6(v6) => around_v4(Span {
            first: v6.network().into(),
            last: v6.broadcast().into(),
        }),
    };
    spans.into_iter().flatten()
}

/// `span` without [`V4`].
fn around_v4(span: Span) -> [Option<Span>; 2] {
    let below = Span {
        first: span.first,
        last: span.last.min(V4.first - 1),
    };
    let above = Span {
        first: span.first.max(V4.last + 1),
        last: span.last,
    };
    [below, above].map(|part| (part.first <= part.last).then_some(part))
}

/// Sorts, and joins spans that overlap or touch.
fn union(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_unstable();
    spans.dedup_by(|next, kept| {
        let joined = kept.last == u128::MAX || next.first <= kept.last + 1;
        if joined {
            kept.last = kept.last.max(next.last);
        }
        joined
    });
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(prefix: &str, except: &[&str]) -> Block {
        Block {
            prefix: prefix.parse().unwrap(),
            except: except.iter().map(|e| e.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn all_of_ipv6_goes_around_ipv4() {
        let spans = of_blocks(&[block("::/0", &[])]);
        let expected = [
            Span {
                first: 0,
                last: V4.first - 1,
            },
            Span {
                first: V4.last + 1,
                last: u128::MAX,
            },
        ];
        assert_eq!(spans, expected);
        assert_eq!(of_blocks(&[block("::ffff:0:0/96", &[])]), []);
        assert_eq!(of_blocks(&[block("0.0.0.0/0", &[])]), [V4]);
    }

    #[test]
    fn spellings_of_one_set_are_equal() {
        let halves = of_blocks(&[block("10.128.0.0/9", &[]), block("10.0.0.0/9", &[])]);
        assert_eq!(halves, of_blocks(&[block("10.0.0.0/8", &[])]));
        let mended = of_blocks(&[
            block("10.0.0.0/8", &["10.1.0.0/16"]),
            block("10.1.0.0/16", &[]),
        ]);
        assert_eq!(mended, halves);
        let joined = of_blocks(&[block("::/0", &[]), block("0.0.0.0/0", &[])]);
        assert_eq!(joined.len(), 1, "{joined:?}");
    }

    #[test]
    fn excepts_cut_at_both_edges_and_inside() {
        let cut = of_blocks(&[block(
            "10.0.0.0/29",
            &["10.0.0.0/31", "10.0.0.4/32", "10.0.0.7/32"],
        )]);
        let host = |h: u128| Address::v4(0x0a00_0000).0 + h;
        let expected = [(2, 3), (5, 6)].map(|(first, last)| Span {
            first: host(first),
            last: host(last),
        });
        assert_eq!(cut, expected);
        assert_eq!(of_blocks(&[block("10.0.0.0/29", &["10.0.0.0/28"])]), []);
        assert_eq!(
            of_blocks(&[block("10.0.0.0/29", &["::/0"])]),
            of_blocks(&[block("10.0.0.0/29", &[])])
        );
    }
}
