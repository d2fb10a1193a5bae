// What the packet socket for RA, DHCP and metadata takes in: router solicitations (RFC 4861), datagrams to the
// DHCPv4 server's port (RFC 2131) and to the DHCPv6 server's (RFC 8415), TCP to the metadata service's addresses, and
// what workloads say of themselves: ARP about one's own address (RFC 5227), RARP, unsolicited neighbour
// advertisements (RFC 4861), VRRP (RFC 5798), and which multicast groups they have joined: reports of IGMP (RFC 2236, RFC
// 3376) and MLD (RFC 2710, RFC 3810); untagged and not our own.
//
// Of each link it takes so many at once and so many a second of either kind; the rest is dropped before it costs room in
// the socket's buffer, which all links share, or anything of who reads there. So a workload that floods
// the host with questions, right or wrong ones, takes nothing from its neighbours.
//
// A bucket is the time at which it is full again. Two processors that take from one at once may take one
// token for two; it is a limit, not an account.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "metadata.h"

#define ICMPV6_RS 133
#define ICMPV6_NA 136
#define ICMPV6_MLD_REPORT 131
#define ICMPV6_MLD_DONE 132
#define ICMPV6_MLD2_REPORT 143
#define NA_SOLICITED 0x40
#define VRRP 112
#define DHCPV4_SERVER 67
#define DHCPV6_SERVER 547
#define FRAGMENT_OFFSET 0x1fff

// Twice what the engine answers, so that malformed questions take little from right ones.
#define BURST 64
#define REFILL_NANOS 50000000ULL
// Segments with which a workload acknowledges 64 KiB of user data, several times over.
#define SEGMENTS 256
#define SEGMENT_NANOS 4000000ULL
#define LINKS 16384


#define WHOLE 0x40000
#define NOTHING 0

enum kind { NONE, REQUEST, SEGMENT, ANNOUNCEMENT, REPORT };

struct map {
	__u32 type, key_size, value_size, max_entries, map_flags, id, pinning;
};

struct bucket {
	__u32 link, kind;
};

// When a link's bucket of a kind is full. The links that asked last are kept.
struct map SEC("maps") buckets = {
	.type = BPF_MAP_TYPE_LRU_HASH,
	.key_size = sizeof(struct bucket),
	.value_size = sizeof(__u64),
	.max_entries = LINKS,
};

static __always_inline int to_port(struct __sk_buff *skb, __u32 offset, __u16 wanted)
{
	__be16 port;

	if (bpf_skb_load_bytes(skb, offset + offsetof(struct udphdr, dest), &port, sizeof(port)))
		return 0;
	return port == bpf_htons(wanted);
}

static __always_inline enum kind of_icmpv6(struct __sk_buff *skb, __u32 offset)
{
	struct {
		__u8 type, code;
		__be16 checksum;
		__u8 flags;
	} icmp;

	if (bpf_skb_load_bytes(skb, offset, &icmp, sizeof(icmp)))
		return NONE;
	if (icmp.type == ICMPV6_RS)
		return REQUEST;
	if (icmp.type == ICMPV6_MLD_REPORT || icmp.type == ICMPV6_MLD_DONE || icmp.type == ICMPV6_MLD2_REPORT)
		return REPORT;
	return icmp.type == ICMPV6_NA && !(icmp.flags & NA_SOLICITED) ? ANNOUNCEMENT : NONE;
}

// Whose sender asks, or tells, about its own address.
static __always_inline enum kind of_arp(struct __sk_buff *skb)
{
	__u32 offset = sizeof(struct ethhdr);
	__be32 sender, target;

	if (bpf_skb_load_bytes(skb, offset + 14, &sender, sizeof(sender)) ||
	    bpf_skb_load_bytes(skb, offset + 24, &target, sizeof(target)))
		return NONE;
	return sender && sender == target ? ANNOUNCEMENT : NONE;
}

static __always_inline enum kind of_ipv6(struct __sk_buff *skb)
{
	__u32 offset = sizeof(struct ethhdr) + sizeof(struct ipv6hdr);
	__be32 to[4];
	__u8 next;

	if (bpf_skb_load_bytes(skb, sizeof(struct ethhdr) + offsetof(struct ipv6hdr, nexthdr), &next,
			       1))
		return NONE;
	// Reports have a Router Alert option before them (RFC 3810 §5).
	if (next == IPPROTO_HOPOPTS) {
		struct {
			__u8 next, length;
		} options;

		if (bpf_skb_load_bytes(skb, offset, &options, sizeof(options)) || options.next != IPPROTO_ICMPV6)
			return NONE;
		return of_icmpv6(skb, offset + 8 * (options.length + 1)) == REPORT ? REPORT : NONE;
	}
	if (next == IPPROTO_UDP)
		return to_port(skb, offset, DHCPV6_SERVER) ? REQUEST : NONE;
	if (next == IPPROTO_ICMPV6)
		return of_icmpv6(skb, offset);
	if (next == VRRP)
		return ANNOUNCEMENT;
	if (next != IPPROTO_TCP ||
	    bpf_skb_load_bytes(skb, sizeof(struct ethhdr) + offsetof(struct ipv6hdr, daddr), to,
			       sizeof(to)))
		return NONE;
	return is_metadata_v6(to) ? SEGMENT : NONE;
}

static __always_inline enum kind of_ipv4(struct __sk_buff *skb)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, sizeof(struct ethhdr), &ip, sizeof(ip)) ||
	    ip.frag_off & bpf_htons(FRAGMENT_OFFSET))
		return NONE;
	if (ip.protocol == VRRP)
		return ANNOUNCEMENT;
	if (ip.protocol == IPPROTO_IGMP)
		return REPORT;
	if (ip.protocol == IPPROTO_TCP)
		return is_metadata_v4(ip.daddr) ? SEGMENT : NONE;
	return ip.protocol == IPPROTO_UDP &&
	       to_port(skb, sizeof(struct ethhdr) + 4 * ip.ihl, DHCPV4_SERVER) ? REQUEST : NONE;
}

static __always_inline int may_ask(__u32 link, enum kind kind)
{
	struct bucket bucket = { link, kind };
	__u64 now = bpf_ktime_get_ns();
	__u64 *full_at = bpf_map_lookup_elem(&buckets, &bucket);
	__u64 refill = kind == SEGMENT ? SEGMENT_NANOS : REFILL_NANOS;
	__u64 most = kind == SEGMENT ? SEGMENTS * SEGMENT_NANOS : BURST * REFILL_NANOS;
	__u64 next = (full_at && *full_at > now ? *full_at : now) + refill;

	if (next > now + most)
		return 0;
	if (full_at)
		*full_at = next;
	else
		bpf_map_update_elem(&buckets, &bucket, &next, BPF_ANY);
	return 1;
}

static __always_inline enum kind kind_of(struct __sk_buff *skb)
{
	__be16 ethertype;

	if (skb->pkt_type == PACKET_OUTGOING || skb->vlan_present ||
	    bpf_skb_load_bytes(skb, offsetof(struct ethhdr, h_proto), &ethertype,
			       sizeof(ethertype)))
		return NONE;
	switch (ethertype) {
	case bpf_htons(ETH_P_IP):
		return of_ipv4(skb);
	case bpf_htons(ETH_P_IPV6):
		return of_ipv6(skb);
	case bpf_htons(ETH_P_ARP):
		return of_arp(skb);
	case bpf_htons(ETH_P_RARP):
		return ANNOUNCEMENT;
	default:
		return NONE;
	}
}

SEC("socket/limited")
int limited_requests(struct __sk_buff *skb)
{
	enum kind kind = kind_of(skb);

	return kind != NONE && may_ask(skb->ifindex, kind) ? WHOLE : NOTHING;
}

// To show what the limit is for.
SEC("socket/all")
int all_requests(struct __sk_buff *skb)
{
	return kind_of(skb) != NONE ? WHOLE : NOTHING;
}

char _license[] SEC("license") = "Dual MIT/GPL";
