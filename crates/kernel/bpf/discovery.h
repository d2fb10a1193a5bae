// ARP (RFC 826) and neighbour discovery (RFC 4861), as far as programs answer them: a question becomes its answer where it
// stands, and goes back by the link that it came from.

#define ARP_HARDWARE_ETHER 1
#define ARP_REQUEST 1
#define ARP_REPLY 2
#define ICMPV6_NS 135
#define ICMPV6_NA 136
#define NA_ROUTER 0x80000000 // RFC 4861 §4.4
#define NA_SOLICITED 0x40000000
#define NA_OVERRIDE 0x20000000
#define OPT_TARGET_LLADDR 2

struct map {
	__u32 type, key_size, value_size, max_entries, map_flags, id, pinning;
};

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

// The link that a packet is on. The compiler would keep the field's own address, which the verifier refuses.
#define LINK(skb)                                                                      \
	({                                                                             \
		__u32 _link;                                                           \
		asm volatile("%0 = *(u32 *)(%1 + %2)"                                  \
			     : "=r"(_link)                                             \
			     : "r"(skb), "i"(offsetof(struct __sk_buff, ifindex)));    \
		_link;                                                                 \
	})

// Octets of a packet: nearly always they are where they can be read without a call.
#define READ(skb, at, to)                                                        \
	({                                                                       \
		void *_from = (void *)(long)(skb)->data + (at);                  \
		int _failed = 0;                                                 \
		if (_from + sizeof(to) <= (void *)(long)(skb)->data_end)         \
			__builtin_memcpy(&(to), _from, sizeof(to));              \
		else                                                             \
			_failed = bpf_skb_load_bytes(skb, at, &(to), sizeof(to)); \
		_failed;                                                         \
	})

static __always_inline void put_mac(__u8 *to, __u64 mac)
{
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

// Whether it is a question about an IPv4 address on Ethernet.
static __always_inline int is_arp_request(struct arp_ipv4 *arp)
{
	return arp->hardware == bpf_htons(ARP_HARDWARE_ETHER) && arp->protocol == bpf_htons(ETH_P_IP) &&
	       arp->hardware_len == 6 && arp->protocol_len == 4 && arp->operation == bpf_htons(ARP_REQUEST);
}

// Who is asked for has that Ethernet address.
static __always_inline void write_arp_reply(struct ethhdr *eth, struct arp_ipv4 *arp, __u64 mac)
{
	__u8 wanted[4];

	__builtin_memcpy(wanted, arp->target_ip, 4);
	__builtin_memcpy(arp->target_ip, arp->sender_ip, 4);
	__builtin_memcpy(arp->target_mac, arp->sender_mac, 6);
	__builtin_memcpy(arp->sender_ip, wanted, 4);
	put_mac(arp->sender_mac, mac);
	arp->operation = bpf_htons(ARP_REPLY);
	__builtin_memcpy(eth->h_dest, eth->h_source, 6);
	put_mac(eth->h_source, mac);
}

static __always_inline __sum16 fold(__s64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

// Who is told: at which Ethernet address, and at which IP address.
struct asker {
	__u8 mac[6];
	__be32 addr[4];
};

// Makes a solicitation, whose headers are where they can be read, an advertisement. Whether that went wrong.
static __always_inline int write_advertisement(struct __sk_buff *skb, const struct asker *to, __be32 *target, __u64 mac,
					       __u32 flags)
{
	struct advertisement *na;
	struct {
		__be32 length, next_header;
	} pseudo = { bpf_htonl(sizeof(struct nd) + sizeof(struct target_lladdr)),
		     bpf_htonl(IPPROTO_ICMPV6) };
	__be32 addr[4];
	__s64 sum;

	if (bpf_skb_change_tail(skb, sizeof(*na), 0))
		return 1;
	na = (void *)(long)skb->data;
	if ((void *)(na + 1) > (void *)(long)skb->data_end)
		return 1;
	__builtin_memcpy(addr, to->addr, 16);
	__builtin_memcpy(na->eth.h_dest, to->mac, 6);
	put_mac(na->eth.h_source, mac);
	na->ip.payload_len = bpf_htons(sizeof(na->nd) + sizeof(na->lladdr));
	__builtin_memcpy(&na->ip.daddr, addr, 16);
	__builtin_memcpy(&na->ip.saddr, target, 16);
	na->nd.type = ICMPV6_NA;
	na->nd.checksum = 0;
	na->nd.flags = bpf_htonl(flags);
	na->lladdr.type = OPT_TARGET_LLADDR;
	na->lladdr.length = 1;
	put_mac(na->lladdr.mac, mac);
	sum = bpf_csum_diff(0, 0, (__be32 *)&pseudo, sizeof(pseudo), 0);
	sum = bpf_csum_diff(0, 0, addr, 16, sum);
	sum = bpf_csum_diff(0, 0, target, 16, sum);
	sum = bpf_csum_diff(0, 0, (void *)na + offsetof(struct advertisement, nd),
			    sizeof(na->nd) + sizeof(na->lladdr), sum);
	na->nd.checksum = fold(sum);
	return 0;
}
