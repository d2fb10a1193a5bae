// The edge of a port, on both directions of its link.
//
// classifier/ingress sees what comes from the workload. It answers ARP and neighbour solicitations
// itself, with the gateway's Ethernet address for whatever is asked, lets nothing else of that kind
// pass, and marks the rest, so that policy can tell it from what the host itself or an uplink sends. It
// also makes it look as if it had come by multicast, which the kernel does not forward, until policy has
// checked it; what has come by multicast or broadcast goes no further (RFC 1122 §3.3.6).
// It also answers pings of fe80::1, so that no port needs an address: the kernel's lists of addresses
// and of routes to fe80::/64 are walked for each one more, 14 CPU-seconds for 10,000 ports.
//
// classifier/egress sees what goes to the workload, and drops what nothing has admitted.
//
// No maps, no state: the gateway's address is a constant in the instructions (see GATEWAY_MAC), so that
// the program's tag changes with it.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

// hextet_model::state::marks; a test compares.
#define MARK_MASK 0x00f00000
#define MARK_FROM_PORT 0x00100000
#define MARK_ADMITTED 0x00400000

// The loader puts the gateway's six octets here, the first in the lowest bits.
#define GATEWAY_MAC_PLACEHOLDER "0x6865787465740000 ll"

#define ARP_HARDWARE_ETHER 1
#define ARP_REQUEST 1
#define ARP_REPLY 2
#define ICMPV6_ECHO_REQUEST 128
#define ICMPV6_ECHO_REPLY 129
#define ICMPV6_MLD_QUERY 130
#define ICMPV6_MLD_DONE 132
#define ICMPV6_RS 133
#define ICMPV6_NS 135
#define ICMPV6_NA 136
#define ICMPV6_REDIRECT 137
#define ICMPV6_MLD2_REPORT 143
#define NA_FLAGS 0xe0000000 // router, solicited, override (RFC 4861 §4.4)
#define OPT_TARGET_LLADDR 2
#define EXTENSION_HEADERS 6

struct arp_ipv4 {
	__be16 hardware, protocol;
	__u8 hardware_len, protocol_len;
	__be16 operation;
	__u8 sender_mac[6];
	__u8 sender_ip[4];
	__u8 target_mac[6];
	__u8 target_ip[4];
} __attribute__((packed));

struct nd {
	__u8 type, code;
	__be16 checksum;
	__be32 flags;
	__be32 target[4];
};

struct target_lladdr {
	__u8 type, length;
	__u8 mac[6];
};

struct advertisement {
	struct ethhdr eth;
	struct ipv6hdr ip;
	struct nd nd;
	struct target_lladdr lladdr;
} __attribute__((packed));

static __always_inline void gateway_mac(__u8 *to)
{
	__u64 mac;

	asm volatile("%0 = " GATEWAY_MAC_PLACEHOLDER : "=r"(mac));
#pragma unroll
	for (int i = 0; i < 6; i++)
		to[i] = mac >> (8 * i);
}

static __always_inline int same(const __u8 *a, const __u8 *b, int len)
{
	__u8 difference = 0;

#pragma unroll
	for (int i = 0; i < len; i++)
		difference |= a[i] ^ b[i];
	return !difference;
}

static __always_inline int zero(const __u8 *a, int len)
{
	__u8 any = 0;

#pragma unroll
	for (int i = 0; i < len; i++)
		any |= a[i];
	return !any;
}

// Out by the link it came from, past our own egress program.
static __always_inline int send_back(struct __sk_buff *skb)
{
	skb->mark = (skb->mark & ~MARK_MASK) | MARK_ADMITTED;
	return bpf_redirect(skb->ifindex, 0);
}

// RFC 826. A probe (sender 0.0.0.0, RFC 5227) and an announcement of one's own address are left
// unanswered: nobody else has that address.
static __always_inline int answer_arp(struct __sk_buff *skb)
{
	struct ethhdr *eth;
	struct arp_ipv4 *arp;
	__u8 wanted[4];

	if (bpf_skb_pull_data(skb, sizeof(*eth) + sizeof(*arp)))
		return TC_ACT_SHOT;
	eth = (void *)(long)skb->data;
	arp = (void *)(eth + 1);
	if ((void *)(arp + 1) > (void *)(long)skb->data_end)
		return TC_ACT_SHOT;
	if (arp->hardware != bpf_htons(ARP_HARDWARE_ETHER) || arp->protocol != bpf_htons(ETH_P_IP) ||
	    arp->hardware_len != 6 || arp->protocol_len != 4 ||
	    arp->operation != bpf_htons(ARP_REQUEST))
		return TC_ACT_SHOT;
	if (zero(arp->sender_ip, 4) || same(arp->sender_ip, arp->target_ip, 4))
		return TC_ACT_SHOT;
	__builtin_memcpy(wanted, arp->target_ip, 4);
	__builtin_memcpy(arp->target_ip, arp->sender_ip, 4);
	__builtin_memcpy(arp->target_mac, arp->sender_mac, 6);
	__builtin_memcpy(arp->sender_ip, wanted, 4);
	gateway_mac(arp->sender_mac);
	arp->operation = bpf_htons(ARP_REPLY);
	__builtin_memcpy(eth->h_dest, eth->h_source, 6);
	gateway_mac(eth->h_source);
	return send_back(skb);
}

static __always_inline __sum16 fold(__s64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

// RFC 4861 §7.2.4. A solicitation from :: is duplicate address detection (RFC 4862 §5.4), and one for
// the sender's own address likewise finds nobody.
static __always_inline int answer_solicitation(struct __sk_buff *skb)
{
	struct advertisement *na;
	__be32 target[4], source[4];
	__u8 guest[6];
	struct {
		__be32 length, next_header;
	} pseudo = { bpf_htonl(sizeof(struct nd) + sizeof(struct target_lladdr)),
		     bpf_htonl(IPPROTO_ICMPV6) };

	if (bpf_skb_pull_data(skb, offsetof(struct advertisement, lladdr)))
		return TC_ACT_SHOT;
	na = (void *)(long)skb->data;
	if ((void *)na + offsetof(struct advertisement, lladdr) > (void *)(long)skb->data_end || na->ip.hop_limit != 255 || na->nd.code)
		return TC_ACT_SHOT;
	if (zero((__u8 *)&na->ip.saddr, 16) || *(__u8 *)&na->ip.saddr == 0xff ||
	    *(__u8 *)na->nd.target == 0xff ||
	    same((__u8 *)&na->ip.saddr, (__u8 *)na->nd.target, 16))
		return TC_ACT_SHOT;
	__builtin_memcpy(target, na->nd.target, 16);
	__builtin_memcpy(source, &na->ip.saddr, 16);
	__builtin_memcpy(guest, na->eth.h_source, 6);
	if (bpf_skb_change_tail(skb, sizeof(*na), 0))
		return TC_ACT_SHOT;
	na = (void *)(long)skb->data;
	if ((void *)(na + 1) > (void *)(long)skb->data_end)
		return TC_ACT_SHOT;
	__builtin_memcpy(na->eth.h_dest, guest, 6);
	gateway_mac(na->eth.h_source);
	na->ip.payload_len = bpf_htons(sizeof(na->nd) + sizeof(na->lladdr));
	__builtin_memcpy(&na->ip.daddr, source, 16);
	__builtin_memcpy(&na->ip.saddr, target, 16);
	na->nd.type = ICMPV6_NA;
	na->nd.checksum = 0;
	na->nd.flags = bpf_htonl(NA_FLAGS);
	na->lladdr.type = OPT_TARGET_LLADDR;
	na->lladdr.length = 1;
	gateway_mac(na->lladdr.mac);

	__s64 sum = bpf_csum_diff(0, 0, (__be32 *)&pseudo, sizeof(pseudo), 0);
	sum = bpf_csum_diff(0, 0, source, 16, sum);
	sum = bpf_csum_diff(0, 0, target, 16, sum);
	sum = bpf_csum_diff(0, 0, (void *)na + offsetof(struct advertisement, nd),
			    sizeof(na->nd) + sizeof(na->lladdr), sum);
	na->nd.checksum = fold(sum);
	return send_back(skb);
}

// RFC 4443 §4.2. The addresses change places, so of the checksum only the type matters.
static __always_inline int answer_echo(struct __sk_buff *skb)
{
	struct ethhdr *eth;
	struct ipv6hdr *ip;
	struct icmp_echo {
		__u8 type, code;
		__be16 checksum;
	} *echo;
	__be32 gateway[4], guest[4];

	if (bpf_skb_pull_data(skb, sizeof(*eth) + sizeof(*ip) + sizeof(*echo)))
		return TC_ACT_SHOT;
	eth = (void *)(long)skb->data;
	ip = (void *)(eth + 1);
	echo = (void *)(ip + 1);
	if ((void *)(echo + 1) > (void *)(long)skb->data_end || echo->code ||
	    *(__u8 *)&ip->saddr == 0xff || zero((__u8 *)&ip->saddr, 16))
		return TC_ACT_SHOT;
	__builtin_memcpy(guest, &ip->saddr, 16);
	__builtin_memcpy(gateway, &ip->daddr, 16);
	__builtin_memcpy(&ip->saddr, gateway, 16);
	__builtin_memcpy(&ip->daddr, guest, 16);
	ip->hop_limit = 64;
	echo->type = ICMPV6_ECHO_REPLY;
	__builtin_memcpy(eth->h_dest, eth->h_source, 6);
	gateway_mac(eth->h_source);
	if (bpf_l4_csum_replace(skb,
				sizeof(*eth) + sizeof(*ip) + offsetof(struct icmp_echo, checksum),
				bpf_htons(ICMPV6_ECHO_REQUEST << 8),
				bpf_htons(ICMPV6_ECHO_REPLY << 8), 2))
		return TC_ACT_SHOT;
	return send_back(skb);
}

static __always_inline int to_gateway(struct __sk_buff *skb)
{
	__be32 destination[4];

	if (bpf_skb_load_bytes(skb, sizeof(struct ethhdr) + offsetof(struct ipv6hdr, daddr),
			       destination, 16))
		return 0;
	return destination[0] == bpf_htonl(0xfe800000) && !destination[1] && !destination[2] &&
	       destination[3] == bpf_htonl(1);
}

static __always_inline int from_port(struct __sk_buff *skb)
{
	if (skb->pkt_type == PACKET_BROADCAST || skb->pkt_type == PACKET_MULTICAST)
		return TC_ACT_SHOT;
	// Frames for other hosts (PACKET_OTHERHOST) the kernel drops by itself.
	if (skb->pkt_type == PACKET_HOST && bpf_skb_change_type(skb, PACKET_MULTICAST))
		return TC_ACT_SHOT;
	skb->mark = (skb->mark & ~MARK_MASK) | MARK_FROM_PORT;
	return TC_ACT_UNSPEC;
}

// Neighbour discovery and multicast listener reports of a workload concern nobody but us; we have seen
// what we need of them before this program. They are found also behind extension headers and in first
// fragments (RFC 6980).
static __always_inline int judge_ipv6(struct __sk_buff *skb)
{
	__u32 offset = sizeof(struct ethhdr) + sizeof(struct ipv6hdr);
	__u8 next, type;
	struct {
		__u8 next, length;
		__be16 fragment;
	} extension;

	if (bpf_skb_load_bytes(skb, sizeof(struct ethhdr) + offsetof(struct ipv6hdr, nexthdr), &next,
			       1))
		return TC_ACT_SHOT;
#pragma unroll
	for (int i = 0; i < EXTENSION_HEADERS; i++) {
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS &&
		    next != IPPROTO_FRAGMENT)
			break;
		if (bpf_skb_load_bytes(skb, offset, &extension, sizeof(extension)))
			return TC_ACT_SHOT;
		if (next == IPPROTO_FRAGMENT) {
			if (extension.fragment & bpf_htons(0xfff8))
				return from_port(skb);
			offset += 8;
		} else {
			offset += 8 * (extension.length + 1);
		}
		next = extension.next;
	}
	if (next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_DSTOPTS ||
	    next == IPPROTO_FRAGMENT)
		return TC_ACT_SHOT;
	if (next != IPPROTO_ICMPV6)
		return from_port(skb);
	if (bpf_skb_load_bytes(skb, offset, &type, 1))
		return TC_ACT_SHOT;
	if (type == ICMPV6_ECHO_REQUEST &&
	    offset == sizeof(struct ethhdr) + sizeof(struct ipv6hdr) && to_gateway(skb))
		return answer_echo(skb);
	if (type == ICMPV6_NS && offset == sizeof(struct ethhdr) + sizeof(struct ipv6hdr))
		return answer_solicitation(skb);
	if ((type >= ICMPV6_RS && type <= ICMPV6_REDIRECT) ||
	    (type >= ICMPV6_MLD_QUERY && type <= ICMPV6_MLD_DONE) || type == ICMPV6_MLD2_REPORT)
		return TC_ACT_SHOT;
	return from_port(skb);
}

SEC("classifier/ingress")
int port_ingress(struct __sk_buff *skb)
{
	// A port speaks IP over plain Ethernet. A tag, also of VLAN 0, could lead around what follows.
	if (skb->vlan_present)
		return TC_ACT_SHOT;
	switch (skb->protocol) {
	case bpf_htons(ETH_P_IP):
		return from_port(skb);
	case bpf_htons(ETH_P_IPV6):
		return judge_ipv6(skb);
	case bpf_htons(ETH_P_ARP):
		return answer_arp(skb);
	default:
		return TC_ACT_SHOT;
	}
}

SEC("classifier/egress")
int port_egress(struct __sk_buff *skb)
{
	return skb->mark & MARK_ADMITTED ? TC_ACT_UNSPEC : TC_ACT_SHOT;
}

char _license[] SEC("license") = "Dual MIT/GPL";
