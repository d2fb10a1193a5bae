// Multicast between ports of a private network, to those that have joined a group (RFC 2236, RFC 3376, RFC 2710, RFC 3810).
//
// Rules judge packets where the kernel forwards them, and it forwards no multicast. So the program makes one packet for each
// listener out of what a port sends to a group: the same packet, but to the listener's own address, and with hops enough to
// get there. It comes in once more by the same link, marked, and is tracked, judged and routed as any packet. The program of
// the link by which it leaves puts back what was there: group and hops, so that those that are sent with one hop, or have to come with 255
// (RFC 5082), do. No octet is added to it, so it has the length that it had. What was there meanwhile stands in a map, by a number that
// the copy carries as its hash.
//
// To another host a copy goes as it was sent, too, and its Ethernet source is the listener's address: so the program of the
// VXLAN device there knows whom it is for, and does the same once more for the listener's own groups.
//
// Between ports of a private network there are no ways to link-local addresses. What has such a source gets the port's
// first global one for good: so rules can tell whom it comes from, who hears it can answer, and nobody can claim to be another.

#define COPIES 65536
// On a packet that the program has made: no other bits than ours are set there on links that we made.
#define MARK_COPY 0x01000000
#define COPY_HOPS 64
#define IPPROTO_OSPF 89
#define SCOPE_LINK 2

// What a copy was, and whom it is for: so no entry becomes that of another packet, however many come between.
struct copy {
	__be32 group[4], addr[4];
	__u8 mac[6];
	__u8 hops;
	// It came from another host, and goes to none: two that do not agree where a port is would send it to and fro for ever.
	__u8 came;
};

// Copies that are on their way, by number; the oldest make room.
struct map SEC("maps") copies = {
	.type = BPF_MAP_TYPE_LRU_HASH,
	.key_size = sizeof(__u32),
	.value_size = sizeof(struct copy),
	.max_entries = COPIES,
};

// The last number of each processor.
struct map SEC("maps") numbers = {
	.type = BPF_MAP_TYPE_PERCPU_ARRAY,
	.key_size = sizeof(__u32),
	.value_size = sizeof(__u32),
	.max_entries = 1,
};

// What is rewritten of a packet: where its addresses are, and where the checksum of its transport is that covers them; none, 0.
struct cast {
	__be32 from[4], to[4];
	__u32 checksum;
	__u8 v6, hops, protocol, is_fragment;
};

// Where a protocol has a checksum that covers the addresses.
static __always_inline __u32 covering(__u8 protocol, int v6)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return 16;
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
	case IPPROTO_DCCP:
		return 6;
	case IPPROTO_ICMPV6:
	case IPPROTO_PIM:
		return v6 ? 2 : 0;
	case IPPROTO_OSPF:
		return v6 ? 12 : 0;
	default:
		return 0;
	}
}

static __always_inline int cast_of_ipv4(struct __sk_buff *skb, struct cast *cast)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, sizeof(struct ethhdr), &ip, sizeof(ip)))
		return 0;
	cast->v6 = 0;
	cast->hops = ip.ttl;
	cast->protocol = ip.protocol;
	cast->from[0] = cast->from[1] = cast->to[0] = cast->to[1] = 0;
	cast->from[2] = cast->to[2] = bpf_htonl(0xffff);
	cast->from[3] = ip.saddr;
	cast->to[3] = ip.daddr;
	cast->checksum = 0;
	cast->is_fragment = !!(ip.frag_off & bpf_htons(IPV4_MORE | IPV4_OFFSET));
	if (!(ip.frag_off & bpf_htons(IPV4_OFFSET))) {
		__u32 covers = covering(ip.protocol, 0);

		if (covers)
			cast->checksum = sizeof(struct ethhdr) + 4 * ip.ihl + covers;
	}
	return 1;
}

static __always_inline int cast_of_ipv6(struct __sk_buff *skb, struct cast *cast)
{
	__u32 offset = sizeof(struct ethhdr) + sizeof(struct ipv6hdr);
	struct ipv6hdr ip;
	struct {
		__u8 next, length;
		__be16 fragment;
	} extension;

	if (bpf_skb_load_bytes(skb, sizeof(struct ethhdr), &ip, sizeof(ip)))
		return 0;
	cast->v6 = 1;
	cast->hops = ip.hop_limit;
	cast->protocol = ip.nexthdr;
	__builtin_memcpy(cast->from, &ip.saddr, 16);
	__builtin_memcpy(cast->to, &ip.daddr, 16);
	cast->checksum = 0;
	cast->is_fragment = 0;
	for (int i = 0; i < EXTENSION_HEADERS; i++) {
		if (cast->protocol != IPPROTO_HOPOPTS && cast->protocol != IPPROTO_DSTOPTS &&
		    cast->protocol != IPPROTO_FRAGMENT && cast->protocol != IPPROTO_AH)
			break;
		if (bpf_skb_load_bytes(skb, offset, &extension, sizeof(extension)))
			return 0;
		if (cast->protocol == IPPROTO_FRAGMENT) {
			cast->is_fragment = !!(extension.fragment & bpf_htons(IPV6_MORE | IPV6_OFFSET));
			if (extension.fragment & bpf_htons(IPV6_OFFSET))
				return 1;
			offset += 8;
		} else if (cast->protocol == IPPROTO_AH) {
			offset += 4 * (extension.length + 2);
		} else {
			offset += 8 * (extension.length + 1);
		}
		cast->protocol = extension.next;
	}
	__u32 covers = covering(cast->protocol, 1);

	if (covers)
		cast->checksum = offset + covers;
	return 1;
}

static __always_inline int cast_of(struct __sk_buff *skb, struct cast *cast)
{
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return cast_of_ipv4(skb, cast);
	return skb->protocol == bpf_htons(ETH_P_IPV6) && cast_of_ipv6(skb, cast);
}

// The checksum of the transport follows an address. A datagram without one (RFC 768) keeps none. What a network card has summed up
// stays right: the address and the checksum change by the same.
static __always_inline int mend(struct __sk_buff *skb, struct cast *cast, __be32 *was, __be32 *is)
{
	__u64 flags = BPF_F_PSEUDO_HDR;

	if (!cast->checksum)
		return 1;
	if (cast->protocol == IPPROTO_UDP)
		flags |= BPF_F_MARK_MANGLED_0;
	return !bpf_l4_csum_replace(skb, cast->checksum, 0, bpf_csum_diff(was, 16, is, 16, 0), flags);
}

static __always_inline int put_destination(struct __sk_buff *skb, struct cast *cast, __be32 *to)
{
	if (!mend(skb, cast, cast->to, to))
		return 0;
	if (cast->v6) {
		if (bpf_skb_store_bytes(skb, sizeof(struct ethhdr) + offsetof(struct ipv6hdr, daddr), to, 16,
					BPF_F_RECOMPUTE_CSUM))
			return 0;
	} else if (bpf_l3_csum_replace(skb, sizeof(struct ethhdr) + offsetof(struct iphdr, check), cast->to[3],
				       to[3], 4) ||
		   bpf_skb_store_bytes(skb, sizeof(struct ethhdr) + offsetof(struct iphdr, daddr), &to[3], 4,
				       0)) {
		return 0;
	}
	__builtin_memcpy(cast->to, to, 16);
	return 1;
}

static __always_inline int put_source(struct __sk_buff *skb, struct cast *cast, __be32 *from)
{
	if (!mend(skb, cast, cast->from, from))
		return 0;
	return !bpf_skb_store_bytes(skb, sizeof(struct ethhdr) + offsetof(struct ipv6hdr, saddr), from, 16,
				    BPF_F_RECOMPUTE_CSUM);
}

static __always_inline int put_hops(struct __sk_buff *skb, struct cast *cast, __u8 hops)
{
	__u32 at = sizeof(struct ethhdr);
	__be16 was, is;

	if (cast->v6)
		return !bpf_skb_store_bytes(skb, at + offsetof(struct ipv6hdr, hop_limit), &hops, 1,
					    BPF_F_RECOMPUTE_CSUM);
	was = bpf_htons(cast->hops << 8);
	is = bpf_htons(hops << 8);
	return !bpf_l3_csum_replace(skb, at + offsetof(struct iphdr, check), was, is, 2) &&
	       !bpf_skb_store_bytes(skb, at + offsetof(struct iphdr, ttl), &hops, 1, 0);
}

static __always_inline __u32 next_number(void)
{
	__u32 zero = 0, *last = bpf_map_lookup_elem(&numbers, &zero);

	if (!last)
		return 0;
	*last += 1;
	return *last << 10 | (bpf_get_smp_processor_id() & 0x3ff);
}

// A group beyond this node, and beyond what its members alone are told.
static __always_inline int is_group(struct cast *cast)
{
	if (!cast->v6)
		return is_class_d(cast->to[3]) && cast->protocol != IPPROTO_IGMP;
	return (cast->to[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000) &&
	       ((bpf_ntohl(cast->to[0]) >> 16) & 0xf) >= SCOPE_LINK;
}

// A source that the rules can judge: what is link-local becomes the port's own address, which is as good as checked.
static __always_inline int own_source(struct __sk_buff *skb, struct cast *cast, __u32 *marks)
{
	__u64 own[2];

	if (!cast->v6 || !is_link_local(cast->from[0]))
		return 1;
	if (!of_speaker(skb, OWN_HIGH, &own[0]) || !of_speaker(skb, OWN_LOW, &own[1]) ||
	    !put_source(skb, cast, (__be32 *)own))
		return 0;
	__builtin_memcpy(cast->from, own, 16);
	*marks |= MARK_SOURCE_CHECKED;
	return 1;
}

// Whether a listener gets a copy of what came by the link, and is not its sender; what comes from another host names the one. For a
// fragment it has been asked whether there may be so many.
static __always_inline int gets(struct __sk_buff *skb, struct listener *listener, struct cast *cast,
				const __u8 *mac)
{
	if (LINK(skb) & TUNNEL)
		return listener->here && same(listener->mac, mac, 6);
	return !same((__u8 *)listener->addr, (__u8 *)cast->from, 16) && !same(listener->mac, mac, 6) &&
	       (cast->is_fragment || may_copy(skb, 1));
}

// What is copied, and what is written down of each copy.
struct original {
	struct cast cast;
	struct copy copy;
	__u8 mac[6];
};

__noinline int copy_to(struct __sk_buff *skb, struct listener *listener, struct original *original)
{
	__be32 addr[4];
	__u32 number;

	if (!listener || !original || !gets(skb, listener, &original->cast, original->mac))
		return 0;
	__builtin_memcpy(addr, listener->addr, 16);
	if (!put_destination(skb, &original->cast, addr))
		return 0;
	__builtin_memcpy(original->copy.mac, listener->mac, 6);
	__builtin_memcpy(original->copy.addr, addr, 16);
	number = next_number();
	bpf_map_update_elem(&copies, &number, &original->copy, BPF_ANY);
	bpf_set_hash(skb, number);
	return !bpf_clone_redirect(skb, LINK(skb), BPF_F_INGRESS);
}

// One packet for each who has joined the group.
__noinline int spread(struct __sk_buff *skb, __u32 marks)
{
	struct audience *audience;
	struct original original = {};
	struct cast *cast = &original.cast;
	__u32 length = 0;

	if (!cast_of(skb, cast) || !is_group(cast))
		return TC_ACT_SHOT;
	audience = audience_of(skb, cast->to);
	if (!audience || bpf_check_mtu(skb, 0, &length, 0, BPF_MTU_CHK_SEGS) ||
	    bpf_skb_load_bytes(skb, 6, original.mac, 6) || !own_source(skb, cast, &marks) ||
	    !put_hops(skb, cast, COPY_HOPS))
		return TC_ACT_SHOT;
	__builtin_memcpy(original.copy.group, cast->to, 16);
	original.copy.hops = cast->hops;
	original.copy.came = !!(LINK(skb) & TUNNEL);
	skb->mark = marks | MARK_COPY;
	for (int i = 0; i < LISTENERS && i < audience->count; i++)
		copy_to(skb, &audience->listeners[i], &original);
	return TC_ACT_SHOT;
}

static __always_inline int is_copy(struct __sk_buff *skb)
{
	return LINK(skb) >= OWN_LINKS && (skb->mark & MARK_COPY);
}

// A copy comes in: it has been seen before, and goes on as what came from a port, or from another host, does.
static __always_inline int go_on(struct __sk_buff *skb)
{
	int type = LINK(skb) & TUNNEL ? PACKET_HOST : PACKET_MULTICAST;

	return bpf_skb_change_type(skb, type) ? TC_ACT_SHOT : TC_ACT_OK;
}

// A copy leaves, as what it was.
__noinline int restore(struct __sk_buff *skb)
{
	__u32 number = skb->hash;
	struct copy *known = bpf_map_lookup_elem(&copies, &number), copy;
	struct cast cast;
	__u8 mac[6] = { 0x01, 0x00, 0x5e };

	if (!known || LINK(skb) & LEG)
		return TC_ACT_SHOT;
	copy = *known;
	// Nobody has translated it, and it is of its group's family.
	if (!cast_of(skb, &cast) || !same((__u8 *)cast.to, (__u8 *)copy.addr, 16) ||
	    !put_hops(skb, &cast, copy.hops) || !put_destination(skb, &cast, copy.group))
		return TC_ACT_SHOT;
	if (LINK(skb) & TUNNEL) {
		skb->mark = 0;
		// The packets of a flow leave under the same port of the tunnel.
		bpf_set_hash_invalid(skb);
		if (copy.came)
			return TC_ACT_SHOT;
		return bpf_skb_store_bytes(skb, 6, copy.mac, 6, 0) ? TC_ACT_SHOT : TC_ACT_OK;
	}
	if (cast.v6) {
		mac[0] = mac[1] = 0x33;
		__builtin_memcpy(mac + 2, &copy.group[3], 4);
	} else {
		__builtin_memcpy(mac + 3, (__u8 *)&copy.group[3] + 1, 3);
		mac[3] &= 0x7f;
	}
	return bpf_skb_store_bytes(skb, 0, mac, 6, 0) ? TC_ACT_SHOT : TC_ACT_OK;
}
