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

// What comes from outside: packets to our prefixes are ours, the rest is the node's.
SEC("xdp.frags")
int weir_uplink(struct xdp_md *packet)
{
	void *data = (void *)(long)packet->data;
	void *end = (void *)(long)packet->data_end;
	struct ethhdr *ethernet = data;
	struct prefix prefix = { .bits = 128 };

	if ((void *)(ethernet + 1) > end)
		return XDP_PASS;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = (void *)(ethernet + 1);

		if ((void *)(ip + 1) > end)
			return XDP_PASS;
		prefix.address[10] = 0xff;
		prefix.address[11] = 0xff;
		__builtin_memcpy(&prefix.address[12], &ip->daddr, 4);
	} else if (ethernet->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = (void *)(ethernet + 1);

		if ((void *)(ip + 1) > end)
			return XDP_PASS;
		__builtin_memcpy(prefix.address, &ip->daddr, 16);
	} else {
		return XDP_PASS;
	}
	if (!bpf_map_lookup_elem(&local, &prefix))
		return XDP_PASS;
	return to_socket(packet);
}

// What the node's stack would send to a pod past the daemon: nothing. Frames of AF_XDP sockets are
// transmitted directly and do not come by here.
SEC("classifier")
int weir_shut(struct __sk_buff *packet)
{
	return 2; /* TC_ACT_SHOT */
}

char LICENSE[] SEC("license") = "Apache-2.0";
