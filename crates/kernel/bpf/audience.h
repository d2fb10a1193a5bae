// Who has joined multicast groups on private networks.

#define LISTENERS 64
#define AUDIENCES 65536
// Copies of what one port sends: 50,000 a second, 500 at once. They wait with those of all others for their processor, which
// keeps 1,000 packets waiting (net.core.netdev_max_backlog).
#define COPY_NANOS 20000ULL
#define COPIES_NANOS 10000000ULL

// IPv4 addresses are mapped, here as everywhere.
struct listener {
	__be32 addr[4];
	__u8 mac[6];
	// Whether it is on this host.
	__u16 here;
};

struct audience_key {
	__u64 network;
	__be32 group[4];
};

struct audience {
	__u32 count, unused;
	struct listener listeners[LISTENERS];
};

// Who has joined a group. crates/kernel/src/audiences.rs writes it.
struct map SEC("maps") audiences = {
	.type = BPF_MAP_TYPE_HASH,
	.key_size = sizeof(struct audience_key),
	.value_size = sizeof(struct audience),
	.max_entries = AUDIENCES,
	.map_flags = BPF_F_NO_PREALLOC,
};

// By an address's first four octets (fe80::/10).
static __always_inline int is_link_local(__be32 first)
{
	return (first & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

// What the map says of the link: the number of its network, or half of the address that its port speaks from.
static __always_inline int of_speaker(struct __sk_buff *skb, enum kind kind, __u64 *value)
{
	struct source key = { .link = LINK(skb), .kind = kind };
	__u64 *found = bpf_map_lookup_elem(&sources, &key);

	if (!found)
		return 0;
	*value = *found;
	return 1;
}

// Who hears what is sent to a group by the link.
static __always_inline struct audience *audience_of(struct __sk_buff *skb, const __be32 *group)
{
	struct audience_key key = {};

	if (!of_speaker(skb, NETWORK, &key.network))
		return 0;
	__builtin_memcpy(key.group, group, 16);
	return bpf_map_lookup_elem(&audiences, &key);
}

// How many packets become of one that is sent there.
static __always_inline __u32 copies_of(struct __sk_buff *skb, const __be32 *to)
{
	struct audience *audience = audience_of(skb, to);

	return audience && audience->count ? audience->count : 1;
}

// When each port may have all of its copies again.
struct map SEC("maps") casts = {
	.type = BPF_MAP_TYPE_LRU_HASH,
	.key_size = sizeof(__u32),
	.value_size = sizeof(__u64),
	.max_entries = PORTS,
};

static __always_inline int may_copy(struct __sk_buff *skb, __u32 copies)
{
	return take(&casts, LINK(skb), bpf_ktime_get_ns(), COPY_NANOS * copies, COPIES_NANOS);
}
