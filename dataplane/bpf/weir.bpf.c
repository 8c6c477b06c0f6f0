// The programs that bring packets to Weir's AF_XDP sockets, and keep everyone else from the pods.
//
// One XDP program per role of a port, one tc program for the way out of a pod's host-side veth.
// All share one XSKMAP. A packet that finds no socket is dropped: with XDP_PASS as the fallback a
// queue without a socket, or a dead daemon, would hand it to the node's stack past all policy.
//
// Build with clang 14 (the built object is committed; a test builds it again and compares):
//   clang -O2 -g -target bpf -mcpu=v3 -I/usr/include/$(uname -m)-linux-gnu \
//     -fdebug-prefix-map=$PWD=. -c weir.bpf.c -o weir.bpf.o && llvm-strip -g weir.bpf.o

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

// The loader sets the sizes; these hold when the object is loaded by hand.
#define SLOTS_MAX 1024
#define PREFIXES_MAX 4096
#define NODE_PORTS_MAX 16384

// What `local` says of a destination: all of it is ours, or it is the node's and we have some of its
// ports, or beside these those that translated connections come from.
#define OURS 1
#define NODE_PORTS 2
#define SOURCE_PORTS 3

// Translated connections' source ports; the same numbers stand in src/pipeline/service.rs.
#define FIRST_SOURCE_PORT 61000

struct queue {
	__u32 ifindex;
	__u32 index;
};

// (interface, queue) -> slot in `sockets`.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct queue);
	__type(value, __u32);
	__uint(max_entries, SLOTS_MAX);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, SLOTS_MAX);
} sockets SEC(".maps");

struct prefix {
	__u32 bits;
	__u8 address[16];
};

// Destinations that are ours on an uplink. IPv4 is kept IPv4-mapped, so 96 bits longer.
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__type(key, struct prefix);
	__type(value, __u32);
	__uint(max_entries, PREFIXES_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} local SEC(".maps");

// Services' node ports, (protocol << 16 | port).
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, NODE_PORTS_MAX);
} node_ports SEC(".maps");

static __always_inline int to_socket(struct xdp_md *packet)
{
	struct queue queue = {
		.ifindex = packet->ingress_ifindex,
		.index = packet->rx_queue_index,
	};
	__u32 *slot = bpf_map_lookup_elem(&slots, &queue);

	if (!slot)
		return XDP_DROP;
	return bpf_redirect_map(&sockets, *slot, XDP_DROP);
}

// What a pod sends: all of it, ARP and neighbour discovery too.
SEC("xdp.frags")
int weir_pod(struct xdp_md *packet)
{
	return to_socket(packet);
}

// What the node's own stack sends to pods, on our end of a veth pair.
SEC("xdp.frags")
int weir_host(struct xdp_md *packet)
{
	return to_socket(packet);
}

// IP protocol numbers and ICMP types: the headers that name them need a C library's.
#define ICMP 1
#define TCP 6
#define UDP 17
#define ICMPV6 58
#define SCTP 132
#define ICMP_UNREACHABLE 3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12
#define ICMPV6_FIRST_ERROR 1
#define ICMPV6_LAST_ERROR 4

struct icmp {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 parameter;
};

struct ports {
	__be16 source;
	__be16 destination;
};

static __always_inline int is_service_port(__u8 protocol, __be16 number, __u32 whose)
{
	__u16 port = bpf_ntohs(number);
	__u32 key = (__u32)protocol << 16 | port;

	if (protocol != TCP && protocol != UDP && protocol != SCTP)
		return 0;
	if (whose == SOURCE_PORTS && port >= FIRST_SOURCE_PORT)
		return 1;
	return bpf_map_lookup_elem(&node_ports, &key) != 0;
}

// Whether a packet to the node is for one of its Services' ports.
static __always_inline int to_service(void *at, void *end, __u8 protocol, __u32 whose)
{
	struct ports *ports = at;

	if ((void *)(ports + 1) > end)
		return 0;
	return is_service_port(protocol, ports->destination, whose);
}

// Whether an ICMP error is about a packet that came from such a port. Options of the quoted header are
// not looked behind: nobody sends any there.
static __always_inline int about_service_v4(void *at, void *end, __u32 whose)
{
	struct icmp *icmp = at;
	struct iphdr *quoted = (void *)(icmp + 1);
	struct ports *ports = (void *)(quoted + 1);

	if ((void *)(ports + 1) > end || quoted->ihl != 5)
		return 0;
	if (icmp->type != ICMP_UNREACHABLE && icmp->type != ICMP_TIME_EXCEEDED &&
	    icmp->type != ICMP_PARAMETER_PROBLEM)
		return 0;
	return is_service_port(quoted->protocol, ports->source, whose);
}

static __always_inline int about_service_v6(void *at, void *end, __u32 whose)
{
	struct icmp *icmp = at;
	struct ipv6hdr *quoted = (void *)(icmp + 1);
	struct ports *ports = (void *)(quoted + 1);

	if ((void *)(ports + 1) > end)
		return 0;
	if (icmp->type < ICMPV6_FIRST_ERROR || icmp->type > ICMPV6_LAST_ERROR)
		return 0;
	return is_service_port(quoted->nexthdr, ports->source, whose);
}

// What comes from outside: packets to our prefixes are ours, and those to the node's Service ports,
// the rest is the node's. Fragments to the node are all the node's: only the first of a datagram
// says for which port it is.
SEC("xdp.frags")
int weir_uplink(struct xdp_md *packet)
{
	void *data = (void *)(long)packet->data;
	void *end = (void *)(long)packet->data_end;
	struct ethhdr *ethernet = data;
	struct prefix prefix = { .bits = 128 };
	struct ipv6hdr *v6 = 0;
	struct iphdr *v4 = 0;
	__u32 *whose;

	if ((void *)(ethernet + 1) > end)
		return XDP_PASS;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP)) {
		v4 = (void *)(ethernet + 1);
		if ((void *)(v4 + 1) > end)
			return XDP_PASS;
		prefix.address[10] = 0xff;
		prefix.address[11] = 0xff;
		__builtin_memcpy(&prefix.address[12], &v4->daddr, 4);
	} else if (ethernet->h_proto == bpf_htons(ETH_P_IPV6)) {
		v6 = (void *)(ethernet + 1);
		if ((void *)(v6 + 1) > end)
			return XDP_PASS;
		__builtin_memcpy(prefix.address, &v6->daddr, 16);
	} else {
		return XDP_PASS;
	}
	whose = bpf_map_lookup_elem(&local, &prefix);
	if (!whose)
		return XDP_PASS;
	if (*whose == OURS)
		return to_socket(packet);
	if (v4) {
		void *transport = (void *)v4 + v4->ihl * 4;

		if (v4->ihl < 5 || (v4->frag_off & bpf_htons(0x3fff)))
			return XDP_PASS;
		if (v4->protocol == ICMP) {
			if (about_service_v4(transport, end, *whose))
				return to_socket(packet);
		} else if (to_service(transport, end, v4->protocol, *whose)) {
			return to_socket(packet);
		}
	} else if (v6) {
		void *transport = v6 + 1;

		if (v6->nexthdr == ICMPV6) {
			if (about_service_v6(transport, end, *whose))
				return to_socket(packet);
		} else if (to_service(transport, end, v6->nexthdr, *whose)) {
			return to_socket(packet);
		}
	}
	return XDP_PASS;
}

// What the node's stack would send to a pod past the daemon: nothing. Frames of AF_XDP sockets are
// transmitted directly and do not come by here.
SEC("classifier")
int weir_shut(struct __sk_buff *packet)
{
	return 2; /* TC_ACT_SHOT */
}

char LICENSE[] SEC("license") = "Apache-2.0";
