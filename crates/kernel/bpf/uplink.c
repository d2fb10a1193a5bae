// The host's uplink, on what comes in by it: the host answers ARP and neighbour solicitations for the addresses of
// workloads, which are on its side, as if they were its own (RFC 4861 §7.2.8, RFC 1027). Which these are is in a map that the
// agent fills, and that the attached program keeps; so they are answered for as long as the host runs.
//
// It answers probes as well: duplicate address detection (RFC 4862 §5.4) and that of IPv4 (RFC 5227) find that the address
// is taken. Answers override, since nobody else has the address: where a workload has come from another host, who knew
// that one's Ethernet address learns ours.
//
// A solicitation that was sent to a group, for an address that no map has and to which this host would send by the same
// link, concerns nobody here. It goes no further: the kernel would look through its list of groups for it, so that
// somebody who scans a prefix would slow down the host by as many groups as it has joined. Others' proxies on the
// host answer as ever, since what they answer for has a way by another link.
//
// All else passes, to other programs and filters of the link.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "discovery.h"

#define ANSWERS 262144
#define FAMILY_INET6 10
#define SHORTEST (sizeof(struct nd))

// IPv4 addresses are mapped (RFC 4291 §2.5.5.2).
struct answered {
	__u32 link;
	__be32 addr[4];
};

// The Ethernet address under which the host answers, in the lower six octets; of a link's unspecified address, that of the link
// itself. crates/kernel/src/uplink.rs writes it.
struct map SEC("maps") answers = {
	.type = BPF_MAP_TYPE_HASH,
	.key_size = sizeof(struct answered),
	.value_size = sizeof(__u64),
	.max_entries = ANSWERS,
	.map_flags = BPF_F_NO_PREALLOC,
};

// The link's own Ethernet address, if the host answers there for that address; else 0.
static __always_inline __u64 mac_for(struct answered *asked)
{
	__u64 *mac;

	if (!bpf_map_lookup_elem(&answers, asked))
		return 0;
	asked->addr[0] = asked->addr[1] = asked->addr[2] = asked->addr[3] = 0;
	mac = bpf_map_lookup_elem(&answers, asked);
	return mac ? *mac : 0;
}

__noinline int answer_arp(struct __sk_buff *skb)
{
	struct answered asked = { .link = skb->ifindex };
	struct ethhdr *eth;
	struct arp_ipv4 *arp;
	__u64 mac;

	if (bpf_skb_pull_data(skb, sizeof(*eth) + sizeof(*arp)))
		return TC_ACT_UNSPEC;
	eth = (void *)(long)skb->data;
	arp = (void *)(eth + 1);
	if ((void *)(arp + 1) > (void *)(long)skb->data_end || !is_arp_request(arp))
		return TC_ACT_UNSPEC;
	// An announcement is no question.
	if (same(arp->sender_ip, arp->target_ip, 4))
		return TC_ACT_UNSPEC;
	asked.addr[2] = bpf_htonl(0xffff);
	__builtin_memcpy(&asked.addr[3], arp->target_ip, 4);
	mac = mac_for(&asked);
	if (!mac)
		return TC_ACT_UNSPEC;
	write_arp_reply(eth, arp, mac);
	return bpf_redirect(skb->ifindex, 0);
}

// Whether the host would send to the target by that very link. (The kernel would not tell for one that is asked for by a
// link-local address, which is never forwarded.)
static __always_inline int is_beyond(struct __sk_buff *skb, __be32 *target)
{
	struct bpf_fib_lookup way = { .family = FAMILY_INET6, .ifindex = skb->ifindex };
	long found;

	__builtin_memcpy(way.ipv6_dst, target, 16);
	found = bpf_fib_lookup(skb, &way, sizeof(way), 0);
	return (found == BPF_FIB_LKUP_RET_SUCCESS || found == BPF_FIB_LKUP_RET_NO_NEIGH) &&
	       way.ifindex == skb->ifindex;
}

// What is malformed (RFC 4861 §7.1.1) is the kernel's to drop.
__noinline int answer_solicitation(struct __sk_buff *skb)
{
	struct answered asked = { .link = skb->ifindex };
	struct advertisement *na;
	struct asker to = {};
	__be32 target[4];
	__u32 flags;
	__u64 mac;
	int probes, to_group;

	if (bpf_skb_pull_data(skb, offsetof(struct advertisement, lladdr)))
		return TC_ACT_UNSPEC;
	na = (void *)(long)skb->data;
	if ((void *)na + offsetof(struct advertisement, lladdr) > (void *)(long)skb->data_end)
		return TC_ACT_UNSPEC;
	if (na->ip.hop_limit != 255 || na->nd.code || bpf_ntohs(na->ip.payload_len) < SHORTEST ||
	    *(__u8 *)na->nd.target == 0xff || *(__u8 *)&na->ip.saddr == 0xff)
		return TC_ACT_UNSPEC;
	__builtin_memcpy(target, na->nd.target, 16);
	__builtin_memcpy(to.addr, &na->ip.saddr, 16);
	__builtin_memcpy(to.mac, na->eth.h_source, 6);
	probes = zero((__u8 *)to.addr, 16);
	to_group = *(__u8 *)&na->ip.daddr == 0xff;
	if (same((__u8 *)to.addr, (__u8 *)target, 16) || (probes && !to_group))
		return TC_ACT_UNSPEC;
	__builtin_memcpy(asked.addr, target, 16);
	mac = mac_for(&asked);
	if (!mac) {
		if (probes || !to_group || target[0] == bpf_htonl(0xfe800000))
			return TC_ACT_UNSPEC;
		return is_beyond(skb, target) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
	}
	flags = NA_SOLICITED | NA_OVERRIDE;
	if (probes) {
		// RFC 4861 §7.2.4: to all nodes.
		flags = NA_OVERRIDE;
		to.addr[0] = bpf_htonl(0xff020000);
		to.addr[3] = bpf_htonl(1);
		put_mac(to.mac, 0x010000003333ULL);
	}
	if (write_advertisement(skb, &to, target, mac, flags))
		return TC_ACT_SHOT;
	return bpf_redirect(skb->ifindex, 0);
}

SEC("classifier/uplink")
int hextet_uplink(struct __sk_buff *skb)
{
	__u8 next, type;

	// A tagged frame is for another link.
	if (skb->vlan_present || skb->pkt_type == PACKET_OTHERHOST)
		return TC_ACT_UNSPEC;
	if (skb->protocol == bpf_htons(ETH_P_ARP))
		return answer_arp(skb);
	if (skb->protocol != bpf_htons(ETH_P_IPV6) ||
	    READ(skb, sizeof(struct ethhdr) + offsetof(struct ipv6hdr, nexthdr), next) ||
	    next != IPPROTO_ICMPV6 ||
	    READ(skb, sizeof(struct ethhdr) + sizeof(struct ipv6hdr), type) || type != ICMPV6_NS)
		return TC_ACT_UNSPEC;
	return answer_solicitation(skb);
}

char _license[] SEC("license") = "Dual MIT/GPL";
