// The edge of a port, on both directions of its link.
//
// classifier/ingress sees what comes from the workload. It answers ARP and neighbour solicitations
// itself, with the gateway's Ethernet address for whatever is asked, lets nothing else of that kind
// pass, and marks the rest, so that policy can tell it from what the host itself or an uplink sends, and
// what has a source that the port may use. It also makes it look as if it had come by multicast, which the
// kernel does not forward, until policy has seen the marks; what has come by multicast or broadcast goes no
// further (RFC 1122 §3.3.6), but for copies that are made of it (multicast.h). Nor do IPv4 redirects, and what poses as a DHCP server.
// It also answers pings of fe80::1, so that no port needs an address: the kernel's lists of addresses
// and of routes to fe80::/64 are walked for each one more, 14 CPU-seconds for 10,000 ports.
//
// classifier/egress sees what goes to the workload, and drops what nothing has admitted.
//
// Functions that are neither static nor inlined the kernel verifies by themselves, and not anew for each way that leads
// to them; what they leave behind their pointers may be anything then.
//
// Both decide for all that come after them: what they let pass runs through no further program or filter of
// the link. A port has them twice where the kernel can, by TCX and by tc, and of these the second must not run:
// it would take what the first one made multicast for that, and drop it.
//
// What is for the metadata service it drops: a packet socket has seen it, and it is answered from there.
//
// What has spent its hops makes the kernel send an error: of each port's such packets it lets in 20 a second.
// A workload whose device leaves checksums to the host says
// itself where they go, and the kernel writes them there once policy has judged the packet: the program lets
// in those that go where the packet's protocol has its checksum.
//
// The gateway's address is a constant in the instructions (see GATEWAY_MAC), so that the program's tag
// changes with it, and so are the places of numbers in the kernel's struct sk_buff, which the loader knows
// from the kernel's own BTF. The exact sources of all ports are in a map that the agent fills, and that the
// attached program keeps. There is no other state than that of fragments and errors, which nothing has to
// keep.

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
#include "metadata.h"

// hextet_model::state::marks; a test compares.
#define MARK_MASK 0x00f00000
#define MARK_FROM_PORT 0x00100000
#define MARK_SOURCE_CHECKED 0x00200000
#define MARK_ADMITTED 0x00400000
#define MARK_OWN_REPORT 0x00800000
#define MARK_HOP 0x000fffff
// In the index of a VXLAN device.
#define TUNNEL 0x40000000
// Links that hextet made have indexes from here on; a workload's own, on a routed network, has a smaller one.
#define OWN_LINKS 0x01000000
// And in that of a pair's end that leads to a router.
#define LEG 0x20000000

// The loader puts the gateway's six octets here, the first in the lowest bits.
#define GATEWAY_MAC_PLACEHOLDER "0x6865787465740000 ll"
// And here where a stretch of struct sk_buff begins, in octets, where in that these stand, and which bits of
// the octet at `ip_summed` are its own.
#define STRETCH "0x6865787465740001 ll"
#define IP_SUMMED "0x6865787465740002 ll"
#define IP_SUMMED_BITS "0x6865787465740003 ll"
#define CSUM_START "0x6865787465740004 ll"
#define CSUM_OFFSET "0x6865787465740005 ll"
#define MAC_HEADER "0x6865787465740006 ll"
// crates/kernel/src/edge.rs knows that it is so long.
#define STRETCH_LEN 96

#define ICMP_UNREACHABLE 3
#define ICMP_QUENCH 4
#define ICMP_REDIRECT 5
#define ICMP_EXCEEDED 11
#define ICMP_PARAMETER 12
#define ICMP_HEADER 8
#define DHCP_CLIENT 68
#define DHCPV6_CLIENT 546
#define ICMPV6_INFORMATIONAL 128
#define ICMPV6_ECHO_REQUEST 128
#define ICMPV6_ECHO_REPLY 129
#define ICMPV6_MLD_QUERY 130
#define ICMPV6_MLD_DONE 132
#define ICMPV6_RS 133
#define ICMPV6_REDIRECT 137
#define ICMPV6_MLD2_REPORT 143
#define EXTENSION_HEADERS 6
#define IPV4_MORE 0x2000
#define IPV4_OFFSET 0x1fff
#define IPV6_MORE 0x0001
#define IPV6_OFFSET 0xfff8

// A port's packets whose hops are spent, or that have IPv4 options and a source that only a prefix allows (to
// one address the kernel itself sends an error a second): 20 a second, 20 at once.
#define ERROR_NANOS 50000000ULL
#define ERRORS_NANOS 1000000000ULL
// Of VRRP a link gets in 200 a second, 200 at once, each of which goes to so many.
#define ADVERT_NANOS 5000000ULL
#define ADVERTS_NANOS 1000000000ULL
#define RECEIVERS 16
#define VRRP 112
// A receiver's value: the link, the host behind it, and whether any source will do.
#define RECEIVER_HOST(value) ((__u32)((value) >> 32) & 0x00ffffff)
#define RECEIVER_ANY (1ULL << 63)
// What a judge says of multicast, by whether its source is checked.
#define ADVERT 0x100
#define ADVERT_CHECKED 0x101
// And of that which came from another host for one who has joined.
#define CAST 0x102
// Of protocols without a checksum of their own.
#define NO_CHECKSUM 0xffff
// In UDP and in tunnels, which may leave an inner checksum to the host, no rule looks further than this.
#define JUDGED 8
#define PORTS 16384
#define SOURCES 262144

// Of (mac, addr): what a port may send from; of addr alone: who asks for it is told another Ethernet address than the
// gateway's, the value; of mac alone: what is sent there gets the value as mark. A receiver of VRRP is by the sender's
// mac, a number and the family. Of a link alone: the number of its private network, and in two halves the IPv6 address that its
// port speaks from.
enum kind { SOURCE, ANSWER, WAY, RECEIVER, NETWORK, OWN_HIGH, OWN_LOW };

// IPv4 addresses are mapped (RFC 4291 §2.5.5.2).
struct source {
	__u32 link;
	__u8 mac[6];
	__u16 kind;
	__be32 addr[4];
};

// crates/kernel/src/sources.rs writes it.
struct map SEC("maps") sources = {
	.type = BPF_MAP_TYPE_HASH,
	.key_size = sizeof(struct source),
	.value_size = sizeof(__u64),
	.max_entries = SOURCES,
	.map_flags = BPF_F_NO_PREALLOC,
};

// When each link may send all of its VRRP again, likewise.
struct map SEC("maps") adverts = {
	.type = BPF_MAP_TYPE_LRU_HASH,
	.key_size = sizeof(__u32),
	.value_size = sizeof(__u64),
	.max_entries = PORTS,
};

// When each port may have all of its errors again, likewise.
struct map SEC("maps") errors = {
	.type = BPF_MAP_TYPE_LRU_HASH,
	.key_size = sizeof(__u32),
	.value_size = sizeof(__u64),
	.max_entries = PORTS,
};

// A constant that the loader has put into the instructions.
#define LOADED(placeholder)                                      \
	({                                                       \
		__u64 _loaded;                                   \
		asm volatile("%0 = " placeholder : "=r"(_loaded)); \
		_loaded;                                         \
	})

// What the kernel knows of a checksum that is left to it: all in octets from where the packet's buffer begins,
// but the offset, which is from the start.
struct left {
	__u16 start, offset, mac_header;
	__u8 summed;
};

#define FROM(stretch, type, place) (*(const volatile type *)((stretch) + LOADED(place)))

// Since Linux 6.2 a program may look into struct sk_buff, once a function of the kernel has told the verifier
// what it is (the loader knows its number). Before that a helper copies from it, in one go, since that costs
// 55 ns.
#ifdef READ_BY_HELPER
// The copy takes stack, of which all that have called each other have 512 octets together.
#define LOOKS __noinline

static __always_inline void look(struct __sk_buff *skb, struct left *left)
{
	char stretch[STRETCH_LEN] __attribute__((aligned(8)));

	// What it cannot see goes nowhere right.
	if (bpf_probe_read_kernel(stretch, sizeof(stretch), (const char *)skb + LOADED(STRETCH)))
		__builtin_memset(stretch, 0xff, sizeof(stretch));
#else
#define LOOKS static __always_inline

static const char *(*cast_to_kernel)(void *) = (void *)0x68786b66;

static __always_inline void look(struct __sk_buff *skb, struct left *left)
{
	const char *stretch = cast_to_kernel(skb) + LOADED(STRETCH);
#endif
	left->start = FROM(stretch, __u16, CSUM_START);
	left->offset = FROM(stretch, __u16, CSUM_OFFSET);
	left->mac_header = FROM(stretch, __u16, MAC_HEADER);
	left->summed = FROM(stretch, __u8, IP_SUMMED);
}

static __always_inline void mapped(struct source *source, __be32 addr)
{
	source->addr[0] = 0;
	source->addr[1] = 0;
	source->addr[2] = bpf_htonl(0xffff);
	source->addr[3] = addr;
}

// What an address's Ethernet address is, as the port is told: the gateway's, but for those that it may choose
// as its next hop instead.
static __always_inline __u64 mac_of(struct source *asked)
{
	__u64 *mac = bpf_map_lookup_elem(&sources, asked);

	return mac ? *mac : LOADED(GATEWAY_MAC_PLACEHOLDER);
}

// Out by the link it came from, past our own egress program.
static __always_inline int send_back(struct __sk_buff *skb)
{
	skb->mark = (skb->mark & ~MARK_MASK) | MARK_ADMITTED;
	return bpf_redirect(skb->ifindex, 0);
}

// RFC 826. A probe (sender 0.0.0.0, RFC 5227) and an announcement of one's own address are left
// unanswered: nobody else has that address.
__noinline int answer_arp(struct __sk_buff *skb)
{
	struct ethhdr *eth;
	struct arp_ipv4 *arp;
	struct source asked = { .link = skb->ifindex, .kind = ANSWER };
	__be32 addr;

	if (bpf_skb_pull_data(skb, sizeof(*eth) + sizeof(*arp)))
		return TC_ACT_SHOT;
	eth = (void *)(long)skb->data;
	arp = (void *)(eth + 1);
	if ((void *)(arp + 1) > (void *)(long)skb->data_end || !is_arp_request(arp))
		return TC_ACT_SHOT;
	if (zero(arp->sender_ip, 4) || same(arp->sender_ip, arp->target_ip, 4))
		return TC_ACT_SHOT;
	__builtin_memcpy(&addr, arp->target_ip, 4);
	mapped(&asked, addr);
	write_arp_reply(eth, arp, mac_of(&asked));
	return send_back(skb);
}

// RFC 4861 §7.2.4. A solicitation from :: is duplicate address detection (RFC 4862 §5.4), and one for
// the sender's own address likewise finds nobody.
__noinline int answer_solicitation(struct __sk_buff *skb)
{
	struct advertisement *na;
	struct source asked = { .link = skb->ifindex, .kind = ANSWER };
	struct asker to;
	__be32 target[4];

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
	__builtin_memcpy(to.addr, &na->ip.saddr, 16);
	__builtin_memcpy(to.mac, na->eth.h_source, 6);
	__builtin_memcpy(asked.addr, target, 16);
	if (write_advertisement(skb, &to, target, mac_of(&asked), NA_ROUTER | NA_SOLICITED | NA_OVERRIDE))
		return TC_ACT_SHOT;
	return send_back(skb);
}

// RFC 4443 §4.2. The addresses change places, so of the checksum only the type matters.
__noinline int answer_echo(struct __sk_buff *skb)
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
	put_mac(eth->h_source, LOADED(GATEWAY_MAC_PLACEHOLDER));
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

// Whether the port may use that source. Linux drops IPv6 packets with mapped addresses as they come in.
static __always_inline __u32 checked(struct source *source)
{
	return bpf_map_lookup_elem(&sources, source) ? MARK_SOURCE_CHECKED : 0;
}

// The mark of the next hop with this Ethernet address; 0, where there is no such next hop.
static __always_inline __u32 way_of(struct __sk_buff *skb, const __u8 *mac)
{
	struct source sent = { .link = skb->ifindex, .kind = WAY };
	__u64 *mark;

	__builtin_memcpy(sent.mac, mac, 6);
	mark = bpf_map_lookup_elem(&sources, &sent);
	return mark ? *mark & MARK_HOP : 0;
}

static __always_inline int is_gateway(const __u8 *mac)
{
	__u64 gateway = LOADED(GATEWAY_MAC_PLACEHOLDER), is = 0;

#pragma unroll
	for (int i = 0; i < 6; i++)
		is |= (__u64)mac[i] << (8 * i);
	return is == gateway;
}

// To whom a frame goes that comes from a link in another namespace its Ethernet address says alone: the kernel's own word
// for it gets lost on the way.
static __always_inline int from_port(struct __sk_buff *skb, __u32 marks)
{
	int is_ours = LINK(skb) < OWN_LINKS && skb->pkt_type == PACKET_HOST;
	__u8 to[6];

	if (!is_ours && READ(skb, 0, to))
		return TC_ACT_SHOT;
	if (!is_ours && !is_gateway(to)) {
		__u32 way;

		if (to[0] & 1)
			return marks & MARK_SOURCE_CHECKED ? ADVERT_CHECKED : ADVERT;
		way = way_of(skb, to);
		if (!way)
			return TC_ACT_SHOT;
		marks |= way;
	}
	if (bpf_skb_change_type(skb, PACKET_MULTICAST))
		return TC_ACT_SHOT;
	skb->mark = (skb->mark & ~MARK_MASK) | MARK_FROM_PORT | marks;
	return TC_ACT_OK;
}

// Whether a port still had that many nanoseconds of all that it may take.
static __always_inline int take(struct map *shares, __u32 link, __u64 now, __u64 nanos, __u64 all)
{
	__u64 *whole_at = bpf_map_lookup_elem(shares, &link);
	__u64 next = (whole_at && *whole_at > now ? *whole_at : now) + nanos;

	if (next > now + all)
		return 0;
	if (whole_at)
		*whole_at = next;
	else
		bpf_map_update_elem(shares, &link, &next, BPF_ANY);
	return 1;
}

// Whether the port may still cause an error.
static __always_inline int may_err(struct __sk_buff *skb)
{
	return take(&errors, skb->ifindex, bpf_ktime_get_ns(), ERROR_NANOS, ERRORS_NANOS);
}

static __always_inline int is_class_d(__be32 addr)
{
	return (addr & bpf_htonl(0xf0000000)) == bpf_htonl(0xe0000000);
}

// What is sent to a group has few hops, and makes nobody send errors.
static __always_inline int goes_on(struct __sk_buff *skb, __u8 hops, int to_group)
{
	return to_group || hops > 1 || may_err(skb);
}

// Where a protocol has its checksum, behind the first octet of its header.
static __always_inline __u32 checksum_of(__u8 protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return 16;
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
	case IPPROTO_DCCP:
		return 6;
	case IPPROTO_SCTP:
		return 8;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return 2;
	default:
		return NO_CHECKSUM;
	}
}

// Whether the workload has computed the checksum itself. CHECKSUM_PARTIAL is the highest of four.
static __always_inline int has_computed(struct left *left)
{
	__u8 bits = LOADED(IP_SUMMED_BITS);

	return (left->summed & bits) != bits;
}

LOOKS int checksummed(struct __sk_buff *skb)
{
	struct left left;

	look(skb, &left);
	return has_computed(&left);
}

// Whether a checksum that is left to the host goes to its place in the header there, or behind all that
// rules look at: then it is that of what a tunnel carries.
LOOKS int checksum_in_place(struct __sk_buff *skb, __u32 header, __u8 protocol)
{
	struct left left;
	__u32 start;

	look(skb, &left);
	if (has_computed(&left))
		return 1;
	start = (__u16)(left.start - left.mac_header);
	if (start == header && left.offset == checksum_of(protocol))
		return 1;
	return (protocol == IPPROTO_UDP || protocol == IPPROTO_IPIP || protocol == IPPROTO_IPV6 ||
		protocol == IPPROTO_GRE) &&
	       start + left.offset >= header + JUDGED;
}

#include "audience.h"

// An ICMP error is believed when an end of the packet that it quotes is the port's own.
__noinline __u32 own_report_ipv4(struct __sk_buff *skb, __u32 offset)
{
	struct source source = { .link = LINK(skb), .kind = SOURCE };
	struct iphdr quoted;

	if (bpf_skb_load_bytes(skb, offset + ICMP_HEADER, &quoted, sizeof(quoted)) ||
	    bpf_skb_load_bytes(skb, 6, source.mac, 6))
		return 0;
	mapped(&source, quoted.daddr);
	if (checked(&source))
		return MARK_OWN_REPORT;
	mapped(&source, quoted.saddr);
	return checked(&source) ? MARK_OWN_REPORT : 0;
}

__noinline __u32 own_report_ipv6(struct __sk_buff *skb, __u32 offset)
{
	struct source source = { .link = LINK(skb), .kind = SOURCE };
	struct ipv6hdr quoted;

	if (bpf_skb_load_bytes(skb, offset + ICMP_HEADER, &quoted, sizeof(quoted)) ||
	    bpf_skb_load_bytes(skb, 6, source.mac, 6))
		return 0;
	__builtin_memcpy(source.addr, &quoted.daddr, 16);
	if (checked(&source))
		return MARK_OWN_REPORT;
	__builtin_memcpy(source.addr, &quoted.saddr, 16);
	return checked(&source) ? MARK_OWN_REPORT : 0;
}

static __always_inline int is_extension(__u8 header)
{
	return header == IPPROTO_HOPOPTS || header == IPPROTO_ROUTING || header == IPPROTO_DSTOPTS ||
	       header == IPPROTO_FRAGMENT || header == IPPROTO_AH;
}

// Whether what a judge lets go on has a source of the port's own.
static __always_inline int is_own(struct __sk_buff *skb, int verdict)
{
	return verdict == ADVERT_CHECKED || (verdict == TC_ACT_OK && (skb->mark & MARK_SOURCE_CHECKED));
}

#include "fragments.h"

// The headers of a packet that comes in nearly always are where they can be read without a call; where
// they are not, they are brought there. Redirects and DHCP are found also in first fragments, all of which
// have eight octets of what they carry: the kernel takes no others.
static __always_inline int judge_headers_ipv4(struct __sk_buff *skb, __u16 *place)
{
	struct ethhdr *eth = (void *)(long)skb->data;
	struct source source;
	struct iphdr *header, ip;
	__u32 offset, marks;

	if ((void *)eth + sizeof(*eth) + sizeof(ip) > (void *)(long)skb->data_end) {
		if (bpf_skb_pull_data(skb, sizeof(*eth) + sizeof(ip)))
			return TC_ACT_SHOT;
		eth = (void *)(long)skb->data;
		if ((void *)eth + sizeof(*eth) + sizeof(ip) > (void *)(long)skb->data_end)
			return TC_ACT_SHOT;
	}
	header = (void *)(eth + 1);
	ip = *header;
	source.link = skb->ifindex;
	__builtin_memcpy(source.mac, eth->h_source, 6);
	source.kind = SOURCE;
	mapped(&source, ip.saddr);
	marks = checked(&source);
	if (is_metadata_v4(ip.daddr) || !goes_on(skb, ip.ttl, is_class_d(ip.daddr)) ||
	    (!marks && ip.ihl != sizeof(ip) / 4 && !may_err(skb)))
		return TC_ACT_SHOT;
	*place = bpf_ntohs(ip.frag_off) & (IPV4_MORE | IPV4_OFFSET);
	if (*place && !checksummed(skb))
		return TC_ACT_SHOT;
	if (*place & IPV4_OFFSET)
		return from_port(skb, marks);
	offset = sizeof(struct ethhdr) + 4 * ip.ihl;
	if (!checksum_in_place(skb, offset, ip.protocol))
		return TC_ACT_SHOT;
	if (ip.protocol == IPPROTO_UDP) {
		__be16 to;

		if (READ(skb, offset + 2, to) ||
		    to == bpf_htons(DHCP_CLIENT) || to == bpf_htons(DHCPV6_CLIENT))
			return TC_ACT_SHOT;
	} else if (ip.protocol == IPPROTO_ICMP) {
		__u8 type;

		if (READ(skb, offset, type) || type == ICMP_REDIRECT)
			return TC_ACT_SHOT;
		if (!*place && (type == ICMP_UNREACHABLE || type == ICMP_QUENCH ||
			       type == ICMP_EXCEEDED || type == ICMP_PARAMETER))
			marks |= own_report_ipv4(skb, offset);
	}
	return from_port(skb, marks);
}

__noinline int judge_ipv4(struct __sk_buff *skb)
{
	__u16 place = 0;
	int verdict = judge_headers_ipv4(skb, &place);

	if (place && verdict != TC_ACT_SHOT && !fits_ipv4(skb, is_own(skb, verdict)))
		return TC_ACT_SHOT;
	return verdict;
}

// Where the headers before what a packet carries end, and where its fragment header is, if any, in octets from its beginning;
// what it carries; and whether it is not the first of its fragments.
#define CARRIED_OFFSET(carried) ((__u32)((carried) & 0x7fff))
#define CARRIED_FRAGMENT(carried) ((__u32)((carried) >> 16 & 0x7fff))
#define CARRIED_PROTOCOL(carried) ((__u8)((carried) >> 32))
#define CARRIED_LATER (1ULL << 40)

// Walks along the extension headers. 0 if that leads nowhere: there are too many, or they are not whole. A first fragment has all
// headers in it (RFC 7112), and none of them in what follows its end; a later one has none.
__noinline __u64 find_carried(struct __sk_buff *skb)
{
	__u32 offset = sizeof(struct ethhdr) + sizeof(struct ipv6hdr), fragment = 0;
	struct {
		__u8 next, length;
		__be16 fragment;
	} extension;
	__be16 length;
	__u8 next;

	if (READ(skb, sizeof(struct ethhdr) + offsetof(struct ipv6hdr, nexthdr), next) ||
	    READ(skb, sizeof(struct ethhdr) + offsetof(struct ipv6hdr, payload_len), length))
		return 0;
#pragma unroll
	for (int i = 0; i < EXTENSION_HEADERS; i++) {
		if (!is_extension(next))
			break;
		if (READ(skb, offset, extension))
			return 0;
		if (next == IPPROTO_FRAGMENT) {
			if (!fragment)
				fragment = offset;
			if (extension.fragment & bpf_htons(IPV6_OFFSET))
				return CARRIED_LATER | (__u64)fragment << 16 | offset;
			offset += 8;
		} else if (next == IPPROTO_AH) {
			offset += 4 * (extension.length + 2);
		} else {
			offset += 8 * (extension.length + 1);
		}
		next = extension.next;
	}
	if (is_extension(next) ||
	    (fragment && offset + 4 > sizeof(struct ethhdr) + sizeof(struct ipv6hdr) + bpf_ntohs(length)))
		return 0;
	return (__u64)next << 32 | (__u64)fragment << 16 | offset;
}

// Neighbour discovery and multicast listener reports of a workload concern nobody but us; we have seen
// what we need of them before this program. They are found also behind extension headers and in first
// fragments (RFC 6980), as is DHCP.
static __always_inline int judge_headers_ipv6(struct __sk_buff *skb, __u32 *fragment)
{
	__u32 plain = sizeof(struct ethhdr) + sizeof(struct ipv6hdr), offset, marks;
	struct ethhdr *eth = (void *)(long)skb->data;
	struct ipv6hdr *ip;
	struct source source;
	__u64 carried;
	__u8 protocol, type;

	if ((void *)eth + sizeof(*eth) + sizeof(*ip) > (void *)(long)skb->data_end) {
		if (bpf_skb_pull_data(skb, sizeof(*eth) + sizeof(*ip)))
			return TC_ACT_SHOT;
		eth = (void *)(long)skb->data;
		if ((void *)eth + sizeof(*eth) + sizeof(*ip) > (void *)(long)skb->data_end)
			return TC_ACT_SHOT;
	}
	ip = (void *)(eth + 1);
	source.link = skb->ifindex;
	__builtin_memcpy(source.mac, eth->h_source, 6);
	source.kind = SOURCE;
	__builtin_memcpy(source.addr, &ip->saddr, 16);
	marks = checked(&source);
	if (is_metadata_v6((__be32 *)&ip->daddr) || !goes_on(skb, ip->hop_limit, *(__u8 *)&ip->daddr == 0xff))
		return TC_ACT_SHOT;
	carried = is_extension(ip->nexthdr) ? find_carried(skb) : (__u64)ip->nexthdr << 32 | plain;
	if (!carried)
		return TC_ACT_SHOT;
	*fragment = CARRIED_FRAGMENT(carried);
	if (*fragment && !checksummed(skb))
		return TC_ACT_SHOT;
	if (carried & CARRIED_LATER)
		return from_port(skb, marks);
	offset = CARRIED_OFFSET(carried);
	protocol = CARRIED_PROTOCOL(carried);
	if (!checksum_in_place(skb, offset, protocol))
		return TC_ACT_SHOT;
	if (protocol == IPPROTO_UDP) {
		__be16 to;

		if (READ(skb, offset + 2, to) ||
		    to == bpf_htons(DHCP_CLIENT) || to == bpf_htons(DHCPV6_CLIENT))
			return TC_ACT_SHOT;
		return from_port(skb, marks);
	}
	if (protocol != IPPROTO_ICMPV6)
		return from_port(skb, marks);
	if (READ(skb, offset, type))
		return TC_ACT_SHOT;
	if (type < ICMPV6_INFORMATIONAL && !*fragment)
		marks |= own_report_ipv6(skb, offset);
	if (type == ICMPV6_ECHO_REQUEST && offset == plain && to_gateway(skb))
		return answer_echo(skb);
	if (type == ICMPV6_NS && offset == plain)
		return answer_solicitation(skb);
	if ((type >= ICMPV6_RS && type <= ICMPV6_REDIRECT) ||
	    (type >= ICMPV6_MLD_QUERY && type <= ICMPV6_MLD_DONE) || type == ICMPV6_MLD2_REPORT)
		return TC_ACT_SHOT;
	return from_port(skb, marks);
}

__noinline int judge_ipv6(struct __sk_buff *skb)
{
	__u32 fragment = 0;
	int verdict = judge_headers_ipv6(skb, &fragment);

	if (fragment && verdict != TC_ACT_SHOT && !fits_ipv6(skb, fragment, is_own(skb, verdict)))
		return TC_ACT_SHOT;
	return verdict;
}

// The family of VRRP to its group, without headers in between; 0 of anything else. An IPv6 source that follows from the
// Ethernet address is the port's own, which no entry of the map says.
static __always_inline int vrrp_family(struct __sk_buff *skb, int *checked)
{
	struct ipv6hdr ip;
	__u8 mac[6];

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr v4;

		if (bpf_skb_load_bytes(skb, sizeof(struct ethhdr), &v4, sizeof(v4)))
			return 0;
		return v4.protocol == VRRP && v4.daddr == bpf_htonl(0xe0000012) &&
			       !(v4.frag_off & bpf_htons(IPV4_MORE | IPV4_OFFSET)) ? 4 : 0;
	}
	if (skb->protocol != bpf_htons(ETH_P_IPV6) ||
	    bpf_skb_load_bytes(skb, sizeof(struct ethhdr), &ip, sizeof(ip)) ||
	    bpf_skb_load_bytes(skb, 6, mac, 6))
		return 0;
	if (ip.nexthdr != VRRP || ip.daddr.in6_u.u6_addr32[0] != bpf_htonl(0xff020000) ||
	    ip.daddr.in6_u.u6_addr32[1] || ip.daddr.in6_u.u6_addr32[2] ||
	    ip.daddr.in6_u.u6_addr32[3] != bpf_htonl(0x12))
		return 0;
	if (ip.saddr.in6_u.u6_addr32[0] == bpf_htonl(0xfe800000) && !ip.saddr.in6_u.u6_addr32[1] &&
	    ip.saddr.in6_u.u6_addr8[8] == (mac[0] ^ 2) && ip.saddr.in6_u.u6_addr8[9] == mac[1] &&
	    ip.saddr.in6_u.u6_addr8[10] == mac[2] && ip.saddr.in6_u.u6_addr8[11] == 0xff &&
	    ip.saddr.in6_u.u6_addr8[12] == 0xfe && ip.saddr.in6_u.u6_addr8[13] == mac[3] &&
	    ip.saddr.in6_u.u6_addr8[14] == mac[4] && ip.saddr.in6_u.u6_addr8[15] == mac[5])
		*checked = 1;
	return 6;
}

// Copies VRRP to those who share addresses with its sender, as it is: nothing of it is routed. To another host a copy goes
// under that one's Ethernet address for this, where it gets its own again. TC_ACT_UNSPEC, if it is none.
__noinline int replicate(struct __sk_buff *skb, int checked)
{
	struct source slot = { .link = skb->ifindex, .kind = RECEIVER };
	__u8 group[2][6] = { { 0x01, 0x00, 0x5e, 0, 0, 0x12 }, { 0x33, 0x33, 0, 0, 0, 0x12 } };
	int family = vrrp_family(skb, &checked);

	if (!family)
		return TC_ACT_UNSPEC;
	if (bpf_skb_load_bytes(skb, 6, slot.mac, 6) ||
	    !take(&adverts, skb->ifindex, bpf_ktime_get_ns(), ADVERT_NANOS, ADVERTS_NANOS))
		return TC_ACT_SHOT;
	slot.addr[1] = bpf_htonl(family);
	skb->mark = (skb->mark & ~MARK_MASK) | MARK_ADMITTED;
	for (int i = 0; i < RECEIVERS; i++) {
		__u64 *to;
		__u32 host;
		__u8 mac[6];

		slot.addr[0] = bpf_htonl(i);
		to = bpf_map_lookup_elem(&sources, &slot);
		if (!to || (!checked && !(*to & RECEIVER_ANY)))
			continue;
		__builtin_memcpy(mac, family == 4 ? group[0] : group[1], 6);
		host = RECEIVER_HOST(*to);
		if (host) {
			mac[0] = 0x0a;
			mac[1] = 0x68;
			mac[2] = 0x78;
			mac[3] = host >> 16;
			mac[4] = host >> 8;
			mac[5] = host;
		}
		if (!bpf_skb_store_bytes(skb, 0, mac, 6, 0))
			bpf_clone_redirect(skb, (__u32)*to, 0);
	}
	return TC_ACT_SHOT;
}

// Whether a packet is for a group of its family.
static __always_inline int to_group(struct __sk_buff *skb)
{
	__u32 offset = sizeof(struct ethhdr);
	__u8 first;

	if (skb->protocol == bpf_htons(ETH_P_IP))
		return !READ(skb, offset + offsetof(struct iphdr, daddr), first) && (first & 0xf0) == 0xe0;
	return skb->protocol == bpf_htons(ETH_P_IPV6) &&
	       !READ(skb, offset + offsetof(struct ipv6hdr, daddr), first) && first == 0xff;
}

// What comes from another host, on a VXLAN device: what is for a next hop here has that one's Ethernet address.
static __always_inline int from_tunnel(struct __sk_buff *skb)
{
	__u32 way;
	__u8 to[6];

	if (skb->pkt_type != PACKET_OTHERHOST)
		return to_group(skb) ? CAST : TC_ACT_OK;
	if (READ(skb, 0, to))
		return TC_ACT_SHOT;
	if (to[0] == 0x0a && to[1] == 0x68 && to[2] == 0x78)
		return ADVERT_CHECKED;
	way = way_of(skb, to);
	if (!way || bpf_skb_change_type(skb, PACKET_HOST))
		return TC_ACT_SHOT;
	skb->mark = way;
	return TC_ACT_OK;
}

static __always_inline int judge(struct __sk_buff *skb)
{
	if (LINK(skb) & TUNNEL)
		return from_tunnel(skb);
	if (LINK(skb) & LEG)
		return TC_ACT_OK;
	// A port speaks IP over plain Ethernet. A tag, also of VLAN 0, could lead around what follows.
	if (skb->vlan_present)
		return TC_ACT_SHOT;
	switch (skb->protocol) {
	case bpf_htons(ETH_P_IP):
		return judge_ipv4(skb);
	case bpf_htons(ETH_P_IPV6):
		return judge_ipv6(skb);
	case bpf_htons(ETH_P_ARP):
		return answer_arp(skb);
	default:
		return TC_ACT_SHOT;
	}
}

#include "flows.h"
#include "multicast.h"

// Whether a packet that may go on goes where its sender's gateway sends it: from a port, with a source of its own.
static __always_inline int is_ordinary(struct __sk_buff *skb)
{
	__u32 marks = skb->mark & (MARK_MASK | MARK_HOP);

	if (LINK(skb) & (TUNNEL | LEG))
		return !marks && skb->pkt_type != PACKET_OTHERHOST;
	return marks == (MARK_FROM_PORT | MARK_SOURCE_CHECKED);
}

SEC("classifier/ingress")
int hextet_ingress(struct __sk_buff *skb)
{
	int has_entry = 0, checked, verdict;

	if (is_copy(skb))
		return go_on(skb);
	verdict = take_short_way(skb, &has_entry);
	if (verdict != TC_ACT_UNSPEC)
		return verdict;
	verdict = judge(skb);
	if (has_entry && verdict == TC_ACT_OK && is_ordinary(skb))
		note_sender(skb);
	if (verdict < ADVERT)
		return verdict;
	if (verdict == CAST)
		return spread(skb, 0);
	checked = verdict == ADVERT_CHECKED;
	verdict = replicate(skb, checked);
	if (verdict != TC_ACT_UNSPEC)
		return verdict;
	return spread(skb, checked ? MARK_FROM_PORT | MARK_SOURCE_CHECKED : MARK_FROM_PORT);
}

SEC("classifier/egress")
int hextet_egress(struct __sk_buff *skb)
{
	if (!(skb->ifindex & (TUNNEL | LEG)) && !(skb->mark & MARK_ADMITTED))
		return TC_ACT_SHOT;
	if (is_copy(skb))
		return restore(skb);
	learn_way(skb);
	// A VXLAN device that is given a mark looks for its way anew for each packet.
	if (skb->ifindex & TUNNEL)
		skb->mark = 0;
	return TC_ACT_OK;
}

char _license[] SEC("license") = "Dual MIT/GPL";
