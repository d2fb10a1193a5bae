// A patch between a workload's link and a port in another namespace, on what comes in by either of two links of the
// main namespace: the workload's, and the near end of a veth pair whose far end is the port.
//
// What comes from the workload appears at the far end as if it had come in there, without a way through any queue;
// the port's own program there marks and judges it. So this one does not look at packets at all. What leaves by
// the far end comes in by the near one, and goes out of the workload's link.
//
// Who is joined with whom is in a map that the agent fills, and that the attached program keeps. A link that is not
// in it is closed, so that no packet of a workload gets to the host's own stack by a patch that is being changed.

#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#define PATCHED 65536
// In a value: the link is the near end of a pair, and the packet is for the far one. Indexes have 31 bits.
#define FAR_END 0x80000000U

struct map {
	__u32 type, key_size, value_size, max_entries, map_flags, id, pinning;
};

// By the index of the link that a packet comes in by: where it goes. crates/kernel/src/patch.rs writes it.
struct map SEC("maps") patches = {
	.type = BPF_MAP_TYPE_HASH,
	.key_size = sizeof(__u32),
	.value_size = sizeof(__u32),
	.max_entries = PATCHED,
	.map_flags = BPF_F_NO_PREALLOC,
};

SEC("classifier/patch")
int hextet_patch(struct __sk_buff *skb)
{
	__u32 link = skb->ifindex;
	__u32 *to = bpf_map_lookup_elem(&patches, &link);
	if (!to)
		return TC_ACT_SHOT;
	// The port's program tells by its own marks what it has seen before.
	if (*to & FAR_END) {
		skb->mark = 0;
		return bpf_redirect_peer(*to & ~FAR_END, 0);
	}
	return bpf_redirect(*to, 0);
}

char _license[] SEC("license") = "Dual MIT/GPL";
