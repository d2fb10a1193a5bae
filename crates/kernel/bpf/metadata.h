// Where the metadata service is asked: hextet_metadata's addresses; a test compares.

static __always_inline int is_metadata_v4(__be32 addr)
{
	return addr == bpf_htonl(0xa9fea9fe);
}

static __always_inline int is_metadata_v6(const __be32 *addr)
{
	if (addr[1] | addr[2])
		return 0;
	return (addr[0] == bpf_htonl(0xfe800000) && addr[3] == bpf_htonl(0xa9fea9fe)) ||
	       (addr[0] == bpf_htonl(0xfd000ec2) && addr[3] == bpf_htonl(0x00000254));
}
