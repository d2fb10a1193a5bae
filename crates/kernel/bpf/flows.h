// The short way of known flows, on the links of private networks: ports, tunnels, and pairs to routers.
//
// What comes in and belongs to a flow that a moment ago went all the way, through rules, connection tracking and
// routes, takes the rest of that way at once: Ethernet addresses, one hop less, out by the same link. "A moment" is
// HELD: then a packet goes all the way again. So rules and routes decide on every flow, connections stay known to the
// kernel, and when somebody takes the rules away, or a way changes, that is followed within that time, with
// nobody's help. Nothing has to be told, and nothing forgotten.
//
// A flow is learned where it leaves, from what rules have let pass, and that nobody has translated: both ends of the way lie
// in one namespace, where nothing is. What begins or ends TCP connections, fragments, options and extension headers go
// all the way, as does what is too big for the link, what goes to a next hop that its sender chose, and what nftables has
// to see all of (MARK_ALL_THE_WAY). Connection tracking sees enough of a busy flow to keep it, and must not insist on
// TCP's window (nf_conntrack_tcp_be_liberal).

#define FLOWS 65536
#define HELD 10000000ULL // nanoseconds
// hextet_model::state::marks; a test compares.
#define MARK_ALL_THE_WAY 0x00800000
#define TCP_ORDINARY 0x18 // ACK and PSH (RFC 9293 §3.1), of the flags that begin, end or point
#define TCP_FLAGS 0x3f

struct flow {
	__u32 link;
	__be16 ports[2];
	__be32 source[4], destination[4];
	__u32 protocol;
};

struct way {
	__u64 until;
	__u32 link;
	__u8 macs[12];
	// The Ethernet addresses under which it came in and was judged, once they have been noted.
	__u8 from[12];
	__u32 noted;
};

struct map SEC("maps") flows = {
	.type = BPF_MAP_TYPE_LRU_HASH,
	.key_size = sizeof(struct flow),
	.value_size = sizeof(struct way),
	.max_entries = FLOWS,
};

// Reads what tells flows apart; 0 if the packet has to go all the way.
static __always_inline int read_flow(struct __sk_buff *skb, struct flow *flow)
{
	void *end = (void *)(long)skb->data_end, *transport;
	struct ethhdr *eth = (void *)(long)skb->data;
	struct iphdr *v4 = (void *)(eth + 1);
	struct ipv6hdr *v6 = (void *)(eth + 1);

	if (skb->vlan_present)
		return 0;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if ((void *)(v4 + 1) > end || v4->ihl != sizeof(*v4) / 4 || v4->ttl <= 1 ||
		    v4->frag_off & bpf_htons(IPV4_MORE | IPV4_OFFSET))
			return 0;
		flow->protocol = v4->protocol;
		flow->source[0] = v4->saddr;
		flow->destination[0] = v4->daddr;
		transport = v4 + 1;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if ((void *)(v6 + 1) > end || v6->hop_limit <= 1)
			return 0;
		flow->protocol = v6->nexthdr | 0x100;
		__builtin_memcpy(flow->source, &v6->saddr, 16);
		__builtin_memcpy(flow->destination, &v6->daddr, 16);
		transport = v6 + 1;
	} else {
		return 0;
	}
	if ((__u8)flow->protocol == IPPROTO_TCP) {
		__u8 *tcp = transport;

		if ((void *)(tcp + 14) > end || (tcp[13] & TCP_FLAGS & ~TCP_ORDINARY))
			return 0;
	} else if ((__u8)flow->protocol != IPPROTO_UDP || transport + 8 > end) {
		return 0;
	}
	__builtin_memcpy(flow->ports, transport, 4);
	return 1;
}

// One hop less; the header has been looked at.
static __always_inline int spend_hop(struct __sk_buff *skb)
{
	struct ethhdr *eth = (void *)(long)skb->data;
	struct iphdr *v4 = (void *)(eth + 1);
	struct ipv6hdr *v6 = (void *)(eth + 1);
	void *end = (void *)(long)skb->data_end;
	__u32 sum;
	__u8 hops;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if ((void *)(v4 + 1) > end)
			return 0;
		sum = v4->check + bpf_htons(0x0100);
		v4->check = sum + (sum >= 0xffff);
		v4->ttl--;
		return 1;
	}
	if ((void *)(v6 + 1) > end)
		return 0;
	hops = v6->hop_limit - 1;
	// The sum over the packet that a network card has told knows of the change by this.
	return !bpf_skb_store_bytes(skb, sizeof(*eth) + offsetof(struct ipv6hdr, hop_limit), &hops, 1,
				    BPF_F_RECOMPUTE_CSUM);
}

// What is remembered of the flow that a packet belongs to, be it still good or not.
static __always_inline struct way *way_of_flow(struct __sk_buff *skb, struct flow *flow)
{
	if (LINK(skb) < OWN_LINKS || !read_flow(skb, flow))
		return 0;
	flow->link = LINK(skb);
	return bpf_map_lookup_elem(&flows, flow);
}

// What of a known flow each packet has to show by itself: Ethernet addresses that have been judged, so that its source is its sender's
// and its next hop the gateway, and where its checksum goes.
static __always_inline int is_as_noted(struct __sk_buff *skb, struct flow *flow, struct way *way)
{
	struct ethhdr *eth = (void *)(long)skb->data;
	__u32 header = sizeof(*eth) + sizeof(struct iphdr);

	if (!way->noted || (void *)(eth + 1) > (void *)(long)skb->data_end ||
	    !same((__u8 *)eth, way->from, sizeof(way->from)))
		return 0;
	if (flow->protocol & 0x100)
		header = sizeof(*eth) + sizeof(struct ipv6hdr);
	return LINK(skb) & (TUNNEL | LEG) || checksum_in_place(skb, header, flow->protocol);
}

// Sends a packet of a known flow on; TC_ACT_UNSPEC, if it has to go all the way. Whether there is an entry for its flow then
// it says too.
static __always_inline int take_short_way(struct __sk_buff *skb, int *has_entry)
{
	struct flow flow = {};
	struct way *way = way_of_flow(skb, &flow);
	struct ethhdr *eth;
	__u32 length = 0;

	if (!way)
		return TC_ACT_UNSPEC;
	*has_entry = 1;
	if (way->until < bpf_ktime_get_coarse_ns() || !is_as_noted(skb, &flow, way) ||
	    bpf_check_mtu(skb, way->link, &length, 0, BPF_MTU_CHK_SEGS) || !spend_hop(skb))
		return TC_ACT_UNSPEC;
	eth = (void *)(long)skb->data;
	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return TC_ACT_UNSPEC;
	__builtin_memcpy(eth, way->macs, sizeof(way->macs));
	// All but tunnels are pairs whose other ends are in another namespace; a tunnel's own program sees it leave, and must learn nothing
	// from what no rule has judged.
	if (!(way->link & TUNNEL)) {
		skb->mark = 0;
		return bpf_redirect_peer(way->link, 0);
	}
	skb->mark = MARK_ALL_THE_WAY;
	return bpf_redirect(way->link, 0);
}

// Notes how a packet came in that goes all the way, in the entry of its flow; whether that was needed.
__noinline int note_sender(struct __sk_buff *skb)
{
	struct flow flow = {};
	struct way *way = way_of_flow(skb, &flow);
	struct ethhdr *eth = (void *)(long)skb->data;

	if (!way || (void *)(eth + 1) > (void *)(long)skb->data_end ||
	    (way->noted && same((__u8 *)eth, way->from, sizeof(way->from))))
		return 0;
	way->noted = 0;
	__builtin_memcpy(way->from, eth, sizeof(way->from));
	way->noted = 1;
	return 1;
}

// Learns from a packet that leaves.
static __always_inline void learn_way(struct __sk_buff *skb)
{
	struct ethhdr *eth = (void *)(long)skb->data;
	__u64 until = bpf_ktime_get_coarse_ns() + HELD;
	struct flow flow = {};
	struct way *known, way = {};

	if (skb->ingress_ifindex < OWN_LINKS || skb->mark & (MARK_HOP | MARK_ALL_THE_WAY) ||
	    (void *)(eth + 1) > (void *)(long)skb->data_end || !read_flow(skb, &flow))
		return;
	way.until = until;
	way.link = skb->ifindex;
	__builtin_memcpy(way.macs, eth, sizeof(way.macs));
	flow.link = skb->ingress_ifindex;
	known = bpf_map_lookup_elem(&flows, &flow);
	if (known && known->link == way.link && same(known->macs, way.macs, sizeof(way.macs)))
		known->until = until;
	else
		bpf_map_update_elem(&flows, &flow, &way, BPF_ANY);
}
