// Room for a port's fragments.
//
// The kernel puts datagrams together before any rule judges them, and has 4 MiB for all that are not whole
// (ipfrag_high_thresh, nf_conntrack_frag6_high_thresh). A port gets FRAGMENT_ROOM of that, which comes back when a datagram
// is whole, or in the time after which the kernel gives it up. Only fragments pay for this.
//
// Room comes back early only for what surely gets to the kernel's hands: whatever on its way there could still drop a datagram's
// last fragment would leave the others held by the kernel, and not by anybody's account. So this is the last that is asked
// of a fragment, and of what counts nothing is left that could be wrong with it (is_sound). What goes to a group counts if all its
// copies may be made.

// What a port's fragments may take while their datagrams are not whole, and how long the kernel keeps
// them: 30 s in IPv4, 60 s in IPv6.
#define FRAGMENT_ROOM 262144ULL
#define FRAGMENT_NANOS 60000000000ULL
#define NANOS_PER_OCTET (FRAGMENT_NANOS / FRAGMENT_ROOM)
// A fragment's buffer with all that belongs to it takes less than twice its length and this.
#define FRAGMENT_OVERHEAD 1280
// A datagram whose fragments come within this time gives back all that it took.
#define WHOLE_NANOS 1000000000ULL
#define DATAGRAMS 16384
// A first fragment has the whole header of what it carries (RFC 8200 §4.5). The kernel knows those of TCP, UDP and ICMPv6; the
// others' are no longer than the least that a fragment has.
#define TCP_HEADER 20

// By what the kernel tells datagrams apart, and by the link.
struct datagram {
	__u32 link, id, protocol;
	__be32 source[4], destination[4];
};

// So much of it has come, in order, since then; and what it took.
struct progress {
	__u64 since, nanos;
	__u64 next;
};

// One fragment's place in its datagram, in octets, and whether nothing can be wrong with it.
struct fragment {
	__u32 first, length;
	__u16 more, is_sound;
	// How many of it the kernel may have to hold.
	__u32 copies;
};

// When each port has all of its room again, by link. Two processors that take from one at once may take
// once for both; it is a limit, not an account.
struct map SEC("maps") rooms = {
	.type = BPF_MAP_TYPE_LRU_HASH,
	.key_size = sizeof(__u32),
	.value_size = sizeof(__u64),
	.max_entries = PORTS,
};

// A port has room for fewer than 200 of these.
struct map SEC("maps") datagrams = {
	.type = BPF_MAP_TYPE_LRU_HASH,
	.key_size = sizeof(struct datagram),
	.value_size = sizeof(struct progress),
	.max_entries = DATAGRAMS,
};

static __always_inline void give_back(__u32 link, __u64 nanos)
{
	__u64 *whole_at = bpf_map_lookup_elem(&rooms, &link);

	if (whole_at)
		*whole_at -= nanos;
}

// Whether a fragment may come in. What is taken comes back with the last fragment of a datagram all of
// whose fragments came in order, one right behind the other: then the kernel holds nothing of it any more.
// Any others wait for their time.
static __always_inline int fits(struct __sk_buff *skb, struct datagram *datagram,
				struct fragment *fragment)
{
	__u64 now = bpf_ktime_get_ns();
	__u64 nanos = (2ULL * skb->len + FRAGMENT_OVERHEAD) * NANOS_PER_OCTET * fragment->copies;
	struct progress *progress;

	if (!take(&rooms, skb->ifindex, now, nanos, FRAGMENT_NANOS))
		return 0;
	// The kernel takes no part of eight octets but at the end.
	if (!fragment->is_sound || !fragment->length || (fragment->more && fragment->length % 8))
		return 1;
	if (!fragment->first) {
		struct progress begun = { now, nanos, fragment->length };

		bpf_map_update_elem(&datagrams, datagram, &begun, BPF_ANY);
		return 1;
	}
	progress = bpf_map_lookup_elem(&datagrams, datagram);
	if (!progress || progress->next != fragment->first || now - progress->since > WHOLE_NANOS)
		return 1;
	progress->next += fragment->length;
	progress->nanos += nanos;
	if (!fragment->more) {
		give_back(skb->ifindex, progress->nanos);
		bpf_map_delete_elem(&datagrams, datagram);
	}
	return 1;
}

// What ip_rcv() of the kernel asks of a header.
static __always_inline int is_sound_ipv4(struct __sk_buff *skb, struct iphdr *ip)
{
	__u16 sum = fold(bpf_csum_diff(0, 0, (__be32 *)ip, sizeof(*ip), 0));

	return ip->version == 4 && ip->ihl == sizeof(*ip) / 4 && !sum &&
	       sizeof(struct ethhdr) + bpf_ntohs(ip->tot_len) <= skb->len;
}

// How many packets become of a fragment that goes to a group; 0, if not so many may be made.
static __always_inline __u32 copies_of_all(struct __sk_buff *skb, const __be32 *group)
{
	__u32 copies = copies_of(skb, group), length = 0;

	return !bpf_check_mtu(skb, 0, &length, 0, BPF_MTU_CHK_SEGS) && may_copy(skb, copies) ? copies : 0;
}

// Whether there is room for what comes in, if it is a fragment; `is_own` says that its source is its sender's.
__noinline int fits_ipv4(struct __sk_buff *skb, int is_own)
{
	struct datagram datagram = {};
	struct fragment fragment;
	struct iphdr ip;
	__u16 place;

	if (bpf_skb_load_bytes(skb, sizeof(struct ethhdr), &ip, sizeof(ip)))
		return 0;
	place = bpf_ntohs(ip.frag_off);
	if (!(place & (IPV4_MORE | IPV4_OFFSET)))
		return 1;
	fragment.first = 8 * (place & IPV4_OFFSET);
	fragment.length = (__u16)(bpf_ntohs(ip.tot_len) - 4 * ip.ihl);
	fragment.more = place & IPV4_MORE;
	fragment.is_sound = is_own && is_sound_ipv4(skb, &ip);
	datagram.link = skb->ifindex;
	datagram.id = ip.id;
	datagram.protocol = ip.protocol;
	datagram.source[0] = ip.saddr;
	datagram.destination[0] = ip.daddr;
	fragment.copies = 1;
	if (is_class_d(ip.daddr)) {
		__be32 group[4] = { 0, 0, bpf_htonl(0xffff), ip.daddr };

		fragment.copies = copies_of_all(skb, group);
	}
	return fragment.copies && fits(skb, &datagram, &fragment);
}

// What is sent to a group from a link-local address gets the port's own for it (own_source).
static __always_inline int gets_own_source(struct __sk_buff *skb, struct ipv6hdr *ip)
{
	__u64 half;

	return ip->daddr.in6_u.u6_addr8[0] == 0xff && is_link_local(ip->saddr.in6_u.u6_addr32[0]) &&
	       of_speaker(skb, OWN_HIGH, &half);
}

// Likewise, by the fragment header there; one that is alone (RFC 6946) is none to wait for others.
__noinline int fits_ipv6(struct __sk_buff *skb, __u32 offset, int is_own)
{
	struct datagram datagram = {};
	struct fragment fragment;
	struct ipv6hdr ip;
	struct {
		__u8 next, reserved;
		__be16 place;
		__be32 id;
	} header;
	__u32 end, plain = sizeof(struct ethhdr) + sizeof(ip);
	__u16 place;

	if (bpf_skb_load_bytes(skb, sizeof(struct ethhdr), &ip, sizeof(ip)) ||
	    bpf_skb_load_bytes(skb, offset, &header, sizeof(header)))
		return 0;
	place = bpf_ntohs(header.place);
	if (!(place & (IPV6_MORE | IPV6_OFFSET)))
		return 1;
	end = plain + bpf_ntohs(ip.payload_len);
	fragment.first = place & IPV6_OFFSET;
	fragment.length = (__u16)(end - offset - sizeof(header));
	fragment.more = place & IPV6_MORE;
	// What ipv6_rcv() and nf_ct_frag6_gather() of the kernel ask; options before the header could be wrong, too.
	fragment.is_sound = (is_own || gets_own_source(skb, &ip)) && ip.version == 6 && offset == plain && end >= plain + sizeof(header) &&
			    end <= skb->len && !is_extension(header.next) &&
			    (fragment.first || header.next != IPPROTO_TCP || fragment.length >= TCP_HEADER);
	datagram.link = skb->ifindex;
	datagram.id = header.id;
	__builtin_memcpy(datagram.source, &ip.saddr, 16);
	__builtin_memcpy(datagram.destination, &ip.daddr, 16);
	fragment.copies = ip.daddr.in6_u.u6_addr8[0] == 0xff ? copies_of_all(skb, datagram.destination) : 1;
	return fragment.copies && fits(skb, &datagram, &fragment);
}
