/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Finds the TCP segment in a packet as a cgroup_skb program sees it: from the IP header on. */
#ifndef SONDE_PACKET_H
#define SONDE_PACKET_H

#define ETH_P_IPV4_BE	0x0008
#define ETH_P_IPV6_BE	0xdd86
#define NEXT_TCP	6
#define NEXT_HOP_BY_HOP 0

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

struct segment {
	u32 seq;
	u32 payload; /* offset of the payload in the packet */
	u32 len;     /* bytes of payload */
	u32 overlap; /* of these and before them: bytes cut off because they came before */
	u16 sport;
	u16 dport;
	u8 flags;
};

enum parse_result { PARSE_OTHER, PARSE_SHORT, PARSE_TCP };

/*
 * The payload length comes from skb->len: the IP header's own length is 0 in a BIG TCP super-packet, whose
 * real one is in a hop-by-hop option (IPv6).
 */
static __always_inline enum parse_result parse_segment(struct __sk_buff *skb, struct segment *segment)
{
	void *end = (void *)(long)skb->data_end;
	u8 *ip = (void *)(long)skb->data, *tcp;
	u32 header;

	if (skb->protocol == ETH_P_IPV4_BE) {
		if ((void *)(ip + 20) > end)
			return PARSE_SHORT;
		if (ip[9] != NEXT_TCP)
			return PARSE_OTHER;
		header = (ip[0] & 15) * 4;
	} else if (skb->protocol == ETH_P_IPV6_BE) {
		if ((void *)(ip + 40) > end)
			return PARSE_SHORT;
		header = 40;
		if (ip[6] == NEXT_HOP_BY_HOP) {
			if ((void *)(ip + 48) > end)
				return PARSE_SHORT;
			if (ip[40] != NEXT_TCP)
				return PARSE_OTHER;
			header += (ip[41] + 1) * 8;
		} else if (ip[6] != NEXT_TCP) {
			return PARSE_OTHER;
		}
	} else {
		return PARSE_OTHER;
	}
	if (header < 20 || header > 80)
		return PARSE_SHORT;
	tcp = ip + header;
	if ((void *)(tcp + 20) > end)
		return PARSE_SHORT;
	segment->sport = (tcp[0] << 8) | tcp[1];
	segment->dport = (tcp[2] << 8) | tcp[3];
	segment->seq = ((u32)tcp[4] << 24) | ((u32)tcp[5] << 16) | ((u32)tcp[6] << 8) | tcp[7];
	segment->flags = tcp[13];
	segment->payload = header + (tcp[12] >> 4) * 4;
	segment->len = skb->len > segment->payload ? skb->len - segment->payload : 0;
	return PARSE_TCP;
}

#endif
