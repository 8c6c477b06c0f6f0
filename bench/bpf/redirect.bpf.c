// The peer that forwards with no policy at all: what comes in by one port leaves by the other.
//
// Build with clang 14 (the built object is committed; a test builds it again and compares):
//   clang -O2 -g -target bpf -mcpu=v3 -I/usr/include/$(uname -m)-linux-gnu \
//     -fdebug-prefix-map=$PWD=. -c redirect.bpf.c -o redirect.bpf.o && llvm-strip -g redirect.bpf.o

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

// The number of the interface that a packet came by -> that by which it leaves.
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 16);
} ports SEC(".maps");

SEC("xdp")
int redirect(struct xdp_md *packet)
{
	return bpf_redirect_map(&ports, packet->ingress_ifindex, XDP_DROP);
}

char LICENSE[] SEC("license") = "Apache-2.0";
